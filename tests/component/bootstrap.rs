use crate::harness::{Test, World, tests};
pub(crate) fn tests() -> Vec<Test> { tests![a_container_runs_from_create_to_delete] }
fn a_container_runs_from_create_to_delete(world: &World) {
    let c = world.container("c1").program(["exit 3"]).started();
    assert_eq!(c.wait().unwrap(), 3);
    c.delete().unwrap();
    c.expect_events(["create", "start", "exit 3", "delete 3"]);
}
