//! The header mutation filter.

use std::sync::Arc;

use xds_proto::envoy::config::common::mutation_rules::v3 as rules;
use xds_proto::envoy::extensions::filters::http::header_mutation::v3 as pb;

use crate::config::compile::headers::{append, editable};
use crate::config::compile::matcher::string;
use crate::config::compile::support::{At, CompileError, each, required, unsupported};
use crate::config::filter::{FilterConfig, HeaderMutation, Mutation, Mutations};

pub fn filter(at: At<'_>, m: &pb::HeaderMutation) -> Result<FilterConfig, CompileError> {
    let pb::HeaderMutation {
        mutations: own,
        most_specific_header_mutations_wins,
    } = m;
    let mut levels = Vec::new();
    if let Some(m) = own {
        levels.push(mutations(at.field("mutations"), m)?);
    }
    Ok(FilterConfig::HeaderMutation(HeaderMutation {
        levels,
        most_specific_wins: *most_specific_header_mutations_wins,
    }))
}

pub fn per_route(at: At<'_>, m: &pb::HeaderMutationPerRoute) -> Result<FilterConfig, CompileError> {
    let pb::HeaderMutationPerRoute { mutations: own } = m;
    let mut levels = Vec::new();
    if let Some(m) = own {
        levels.push(mutations(at.field("mutations"), m)?);
    }
    Ok(FilterConfig::HeaderMutation(HeaderMutation {
        levels,
        // The filter's own setting holds.
        most_specific_wins: false,
    }))
}

fn mutations(at: At<'_>, m: &pb::Mutations) -> Result<Arc<Mutations>, CompileError> {
    let pb::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = m;
    unsupported!(
        at,
        query_parameter_mutations,
        response_trailers_mutations,
        request_trailers_mutations
    );
    Ok(Arc::new(Mutations {
        request: each(at, "request_mutations", request_mutations, mutation)?,
        response: each(at, "response_mutations", response_mutations, mutation)?,
    }))
}

fn mutation(at: At<'_>, m: &rules::HeaderMutation) -> Result<Mutation, CompileError> {
    use rules::header_mutation::{Action, RemoveOnMatch};
    let rules::HeaderMutation { action } = m;
    Ok(match required!(at, action) {
        Action::Remove(name) => Mutation::Remove(editable(at.field("remove"), name)?),
        Action::Append(m) => Mutation::Append(append(at.field("append"), m)?),
        Action::RemoveOnMatch(m) => {
            let at = at.field("remove_on_match");
            let RemoveOnMatch { key_matcher } = m;
            let matcher = required!(at, key_matcher);
            Mutation::RemoveOnMatch(string(at.field("key_matcher"), matcher)?)
        }
    })
}
