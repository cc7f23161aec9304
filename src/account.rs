//! What is told of a checkpoint or a restore when it is over: one line in containerd's log, and
//! the node's metrics.

use std::fmt::Display;
use std::time::Duration;

use crate::checkpoint;
use crate::container::Subject;
use crate::metrics::{self, Sample};
use crate::policy::Policy;
use crate::restore;

const CHECKPOINT: &str = "checkpoint";
const RESTORE: &str = "restore";

/// A line with what is said of every operation, and with what is said of this one.
macro_rules! tell {
    ($level:ident, $operation:expr, $result:literal, $subject:expr, $took:expr, $($more:tt)+) => {{
        let Subject { namespace, id, spec, .. } = $subject;
        let pod = spec.pod();
        tracing::$level!(
            operation = $operation,
            result = $result,
            namespace,
            id,
            pod = pod.map(|pod| pod.name),
            pod_namespace = pod.map(|pod| pod.namespace),
            container = pod.map(|pod| pod.container),
            took_us = micros($took),
            $($more)+
        );
    }};
}

pub(crate) fn of_checkpoint(
    subject: &Subject,
    policy: &Policy,
    took: Duration,
    result: Result<&checkpoint::Figures, &checkpoint::Error>,
) {
    let figures = match result {
        Ok(figures) => figures,
        Err(error) => return failed(CHECKPOINT, subject, policy, took, error),
    };
    tell!(
        info,
        CHECKPOINT,
        "done",
        subject,
        took,
        freeze_us = figures.freeze_us,
        frozen_us = figures.frozen_us,
        frozen_by_criu_us = figures.frozen_by_criu_us,
        dump_us = figures.dump_us,
        write_us = figures.write_us,
        compress_us = figures.compress_us,
        resume_us = figures.resume_us,
        pages = figures.pages,
        bytes = figures.bytes,
        shared_bytes = figures.shared_bytes,
        "the container was checkpointed"
    );
    let sample = Sample::Checkpoint {
        took,
        frozen: figures.frozen_us.map(Duration::from_micros),
        bytes: figures.bytes.unwrap_or_default(),
        pages: figures.pages.unwrap_or_default(),
    };
    count(subject, policy, sample);
}

pub(crate) fn of_restore(
    subject: &Subject,
    policy: &Policy,
    took: Duration,
    result: Result<&restore::Figures, &restore::Error>,
) {
    let figures = match result {
        Ok(figures) => figures,
        Err(error) => return failed(RESTORE, subject, policy, took, error),
    };
    tell!(
        info,
        RESTORE,
        "done",
        subject,
        took,
        restore_us = figures.restore_us,
        restore_by_criu_us = figures.restore_by_criu_us,
        resume_us = figures.resume_us,
        pages = figures.pages,
        bytes = figures.bytes,
        "the container came back"
    );
    count(subject, policy, Sample::Restore { took });
}

fn failed(operation: &'static str, subject: &Subject, policy: &Policy, took: Duration, error: &dyn Display) {
    tell!(warn, operation, "failed", subject, took, %error, "{operation} failed");
    count(subject, policy, Sample::Failure { operation });
}

fn count(subject: &Subject, policy: &Policy, sample: Sample) {
    metrics::count(policy.metrics(), &policy.store().path, &subject.namespace, sample);
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
