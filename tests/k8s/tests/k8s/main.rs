//! The operator on a real cluster: one process, one cluster for all cases, a namespace of its own for each.

mod changes;
mod chaos;
mod deletion;
mod ends;
mod lifecycle;
mod manifests;
mod operator;
mod policy;
mod samples;
mod store;
mod volumes;
mod wrong;

use std::process::ExitCode;

use millrace_k8s_tests::suite::{self, Case};

fn main() -> ExitCode {
    let together = vec![
        Case::new("lifecycle::a_job_from_apply_to_delete", lifecycle::from_apply_to_delete),
        Case::new("changes::upgrade_under_load", changes::upgrade_under_load),
        Case::new("changes::scale", changes::scale),
        Case::new("changes::suspend_and_resume", changes::suspend_and_resume),
        Case::new("changes::what_needs_no_restart_causes_none", changes::no_restart),
        Case::new("changes::upgrade_before_the_first_checkpoint", changes::before_the_first_checkpoint),
        Case::new("changes::repair_of_an_upgrade_that_never_runs", changes::repair),
        Case::new("changes::stateless_upgrade", changes::stateless),
        Case::new("manifests::bad_ones_are_refused", manifests::bad_ones_are_refused),
        Case::new("manifests::good_ones_are_taken", manifests::good_ones_are_taken),
        Case::new("wrong::arguments", wrong::arguments),
        Case::new("wrong::image", wrong::image),
        Case::new("wrong::credentials", wrong::credentials),
        Case::new("wrong::bucket", wrong::bucket),
        Case::new("wrong::spec_leaves_the_running_job_alone", wrong::spec),
        Case::new("ends::finished", ends::finished),
        Case::new("ends::failed_and_repaired", ends::failed),
        Case::new("deletion::with_the_namespace", deletion::with_the_namespace),
        Case::new("deletion::without_a_jobmanager", deletion::without_a_jobmanager),
        Case::new("deletion::while_suspended", deletion::while_suspended),
        Case::new("deletion::without_the_object_store", deletion::without_the_object_store),
        Case::new("deletion::again_under_the_same_name", deletion::again_under_the_same_name),
        Case::new("store::ca_bundle", store::ca_bundle),
        Case::new("store::pod_identity", store::pod_identity),
        Case::new("volumes::claim", volumes::claim),
        Case::new("policy::only_the_operator_and_the_job_reach_its_ports", policy::ports),
        Case::new("samples::run", samples::run),
    ];
    let alone = vec![
        Case::new("operator::helm_test", operator::helm_test),
        Case::new("operator::service_monitor_needs_its_crd", operator::service_monitor),
        Case::new("operator::restart_has_no_effect_on_jobs", operator::restart),
        Case::new("operator::recovery_does_not_need_it", operator::absence),
        Case::new("chaos::fifteen_faults", chaos::fifteen_faults),
        Case::new("operator::several_replicas", operator::several_replicas),
        Case::new("operator::of_two_namespaces", operator::of_two_namespaces),
    ];
    suite::main(together, alone)
}
