//! Which policies hold where, in the next state.

use std::sync::Arc;

use super::Mesh;
use super::index::Facet;
use super::objects::Objects;
use crate::model::manifest::authorization::AuthorizationPolicy;
use crate::model::manifest::object::Kind;
use crate::model::manifest::policy::MeshPolicy;
use crate::model::manifest::read::Object;

/// Puts into `next` the policy that holds at a facet; returns whether it differs from before.
pub fn place(objects: &Objects, next: &mut Mesh, facet: &Facet) -> bool {
    let authorization = || objects.all(facet, authorization);
    let mesh = || objects.winner(facet, mesh);
    let (own, policies) = (&mut next.authorization, &mut next.policies);
    match facet {
        Facet::OfNamespace(Kind::AuthorizationPolicy, name) => {
            own.by_namespace.replace(name.clone(), authorization())
        }
        Facet::OfService(Kind::AuthorizationPolicy, key) => {
            own.by_service.replace(key.clone(), authorization())
        }
        Facet::OfWorkload(Kind::AuthorizationPolicy, key) => {
            let all = objects.policies_of(Kind::AuthorizationPolicy, key, self::authorization);
            own.by_workload.replace(key.clone(), all)
        }
        Facet::OfNamespace(Kind::MeshPolicy, name) => {
            policies.by_namespace.replace(name.clone(), mesh())
        }
        Facet::OfWorkload(Kind::MeshPolicy, key) => {
            let all = objects.policies_of(Kind::MeshPolicy, key, self::mesh);
            let oldest = all.and_then(|all| all.into_iter().next());
            policies.by_workload.replace(key.clone(), oldest)
        }
        _ => false,
    }
}

fn authorization(object: &Object) -> Option<Arc<AuthorizationPolicy>> {
    match object {
        Object::Authorization(it) => Some(Arc::clone(it)),
        _ => None,
    }
}

fn mesh(object: &Object) -> Option<Arc<MeshPolicy>> {
    match object {
        Object::Mesh(it) => Some(Arc::clone(it)),
        _ => None,
    }
}
