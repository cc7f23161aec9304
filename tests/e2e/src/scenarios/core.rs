//! What matters most: for machines so slow that everything would take a day.

use crate::harness::Scenario;
use crate::harness::slot::Daemons;

const CONTAINERD: &[&str] = &[
    "states_follow_the_life_of_a_task",
    "events_come_in_the_order_of_things",
    "running_out_of_memory_is_told_before_the_exit",
    "figures_tell_what_is_used",
    "an_update_changes_the_limits",
    "an_exec_runs_and_its_status_comes_back",
    "a_checkpoint_with_exit_ends_the_task_with_137",
    "a_checkpoint_without_exit_goes_on",
    "a_paused_task_stays_paused_over_a_checkpoint",
    "a_failed_checkpoint_lets_the_task_go_on",
    "a_stopped_task_is_checkpointed_or_refused_at_once",
    "a_traced_task_is_refused_at_once",
    "five_generations_count_on",
    "memory_comes_back_as_it_was",
    "all_processes_and_threads_come_back",
    "a_restored_task_has_a_pid_and_a_cgroup_of_its_own",
    "a_restored_task_pauses_resumes_and_ends_like_any_other",
    "a_restore_in_another_cgroup_obeys_the_new_limits",
    "processes_come_back_into_their_cgroup_in_every_hierarchy",
    "cgroups_that_a_container_made_come_back",
    "a_first_process_in_a_cgroup_below_comes_back",
    "a_failed_restore_leaves_no_cgroup_below",
    "after_a_restore_limits_hold_and_can_be_changed",
    "after_a_restore_running_out_of_memory_is_told",
    "after_a_restore_execs_work",
    "a_server_in_a_network_of_its_own_answers_again",
    "a_container_in_a_user_namespace_comes_back",
    "another_user_comes_back_as_itself",
    "a_filter_holds_for_whoever_is_added_after_a_restore",
    "a_copy_with_fewer_rights_is_refused",
    "a_criu_killed_in_the_middle_of_a_dump_lets_the_task_go_on",
    "a_shim_may_die_in_the_middle_of_a_restore",
    "a_restored_task_goes_on_over_a_restart_of_containerd",
    "hooks_run_at_their_stages_in_their_order",
];

const DOCKER: &[&str] = &[
    "it_counts_on_from_a_checkpoint",
    "a_checkpoint_may_leave_it_running",
    "memory_comes_back",
    "a_server_on_the_bridge_answers_again",
    "a_connection_to_oneself_goes_on",
    "limits_of_its_cgroup_are_its_own",
    "a_cgroup_namespace_of_the_host_or_its_own_comes_back",
];

const KUBERNETES: &[&str] = &[
    "a_pod_comes_and_goes",
    "a_pods_figures_have_its_network_and_containers",
    "limits_can_be_changed_while_it_runs",
    "running_out_of_memory_is_the_reason",
    "containers_of_every_state_are_found_again",
    "a_killed_shim_ends_its_container_alone",
    "a_checkpoint_is_an_archive_and_the_container_runs_on",
    "a_container_starts_from_an_archive",
];

pub(super) fn of(mut all: Vec<Scenario>) -> Vec<Scenario> {
    let names = |daemons| match daemons {
        Daemons::Containerd => CONTAINERD,
        Daemons::Docker => DOCKER,
        Daemons::ForPods => KUBERNETES,
    };
    all.retain(|scenario| names(scenario.daemons).contains(&scenario.name));
    let wanted = CONTAINERD.len() + DOCKER.len() + KUBERNETES.len();
    assert_eq!(all.len(), wanted, "a scenario has another name now");
    all
}
