//! What a change costs among thousands of resources: it examines those that refer to what changed,
//! and each table shares the rest with the last snapshot.

use super::super::*;
use super::fixtures::HTTP;
use super::publishing::Bench;
use xds_proto::type_url;

fn cluster(n: usize, timeout: u32) -> String {
    let eds = "eds_cluster_config: {eds_config: {ads: {}}}";
    format!("{{name: cluster{n}, type: EDS, {eds}, connect_timeout: {timeout}s}}")
}

fn routes(n: usize, prefix: &str, cluster: usize) -> String {
    let route = format!("{{match: {{prefix: {prefix}}}, route: {{cluster: cluster{cluster}}}}}");
    let host = format!("{{name: all, domains: ['*'], routes: [{route}]}}");
    format!("{{name: routes{n}, virtual_hosts: [{host}]}}")
}

/// A listener whose routes are `routes{n}`.
fn listener(n: usize, port: usize) -> String {
    const INLINE: &str = r#"route_config:
        name: local
        virtual_hosts:
        - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: cart}}]}"#;
    assert!(HTTP.contains(INLINE));
    let rds = format!("rds: {{config_source: {{ads: {{}}}}, route_config_name: routes{n}}}");
    HTTP.replacen("name: http", &format!("name: listener{n}"), 1)
        .replace(INLINE, &rds)
        .replace("8080", &port.to_string())
}

/// What changes of a bench cost.
struct Costs(Bench);

impl Costs {
    fn among_thousands() -> Self {
        let mut costs = Self(Bench::new());
        for n in 0..500 {
            costs.0.cluster(&cluster(n, 1));
            costs.routes(&routes(n, "/", n));
            costs.listener(&listener(n, 10_000 + n));
        }
        for n in 0..3000 {
            let address = std::net::Ipv4Addr::from(0x0a01_0000 + n).to_string();
            costs.0.peer(&address, &[address.as_str()], "a");
        }
        costs
    }

    fn routes(&mut self, yaml: &str) {
        self.0
            .take::<route_pb::RouteConfiguration>(type_url::ROUTE, yaml);
    }

    fn listener(&mut self, yaml: &str) {
        self.0
            .take::<listener_pb::Listener>(type_url::LISTENER, yaml);
    }

    fn remove(&mut self, kind: &'static str, name: &str) {
        let step = SnapshotStep::Remove(kind, name.into());
        assert!(self.0.compiler.publish(&self.0.store, [step]));
    }

    /// `tables`: so many entries of listeners, sockets, routes, clusters and workloads change;
    /// `examined` and `relinked`: so many resources.
    #[track_caller]
    fn of(
        &mut self,
        change: impl FnOnce(&mut Self),
        tables: [usize; 5],
        (examined, relinked): (u64, u64),
    ) {
        let before = self.0.store.load();
        let counts = |costs: &Self| {
            let counts = &costs.0.compiler.counts;
            (counts.examined.get(), counts.relinked.get())
        };
        let counted = counts(self);
        change(self);
        let now = self.0.store.load();
        let changed = [
            now.listeners.changes(&before.listeners).count(),
            now.by_socket.changes(&before.by_socket).count(),
            now.routes.changes(&before.routes).count(),
            now.clusters.changes(&before.clusters).count(),
            now.workloads.changes(&before.workloads).count(),
        ];
        assert_eq!(changed, tables);
        let wanted = (counted.0 + examined, counted.1 + relinked);
        assert_eq!(counts(self), wanted);
    }
}

#[test]
fn a_change_costs_what_it_touches() {
    let mut costs = Costs::among_thousands();
    let peer = |costs: &mut Costs| costs.0.peer("10.1.0.7", &["10.1.0.7"], "b");
    costs.of(peer, [0, 0, 0, 0, 1], (0, 0));
    let forget = |costs: &mut Costs| costs.0.forget("10.1.0.7");
    costs.of(forget, [0, 0, 0, 0, 1], (0, 0));

    let changed = |costs: &mut Costs| assert!(costs.0.cluster(&cluster(7, 2)));
    costs.of(changed, [1, 1, 1, 1, 0], (2, 2));
    let gone = |costs: &mut Costs| costs.remove(type_url::CLUSTER, "cluster7");
    costs.of(gone, [1, 1, 1, 1, 0], (2, 2));

    let rerouted = |costs: &mut Costs| costs.routes(&routes(8, "/other", 8));
    costs.of(rerouted, [1, 1, 1, 0, 0], (2, 1));
    // Its old socket is looked for among its own versions alone.
    let moved = |costs: &mut Costs| costs.listener(&listener(9, 9));
    costs.of(moved, [1, 2, 0, 0, 0], (1, 0));
}

#[test]
fn a_change_is_linked_to_what_refers_to_it_now() {
    let mut costs = Costs::among_thousands();
    let other = |costs: &mut Costs| costs.routes(&routes(8, "/", 7));
    costs.of(other, [1, 1, 1, 0, 0], (2, 1));
    let left = |costs: &mut Costs| assert!(costs.0.cluster(&cluster(8, 2)));
    costs.of(left, [0, 0, 0, 1, 0], (0, 0));
    let both = |costs: &mut Costs| assert!(costs.0.cluster(&cluster(7, 2)));
    costs.of(both, [2, 2, 2, 1, 0], (4, 4));
    let gone = |costs: &mut Costs| costs.remove(type_url::LISTENER, "listener8");
    costs.of(gone, [1, 1, 0, 0, 0], (0, 0));
    let again = |costs: &mut Costs| assert!(costs.0.cluster(&cluster(7, 3)));
    costs.of(again, [1, 1, 2, 1, 0], (3, 3));
}
