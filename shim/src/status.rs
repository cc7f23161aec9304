//! The core's errors as gRPC codes: clients act on these, people read the words.

use std::io::ErrorKind;

use cryo::checkpoint;
use cryo::checkpoint::image;
use cryo::container::Error;
use cryo::outside::Why;
use cryo::policy::{self, NotAllowed};
use cryo::restore::{self, fit};
use cryo::rootfs;
use cryo::runtime::{self, Cause};
use cryo::stdio;
use cryo::store;
use cryo_protos::ttrpc::error::get_rpc_status;
use cryo_protos::ttrpc::{self, Code};

/// The answer for a container nobody made; clients know these words.
pub(crate) fn no_container() -> ttrpc::Error {
    get_rpc_status(Code::NOT_FOUND, "container not created")
}

pub(crate) fn invalid(error: impl ToString) -> ttrpc::Error {
    get_rpc_status(Code::INVALID_ARGUMENT, error)
}

pub(crate) fn held(error: impl ToString) -> ttrpc::Error {
    get_rpc_status(Code::FAILED_PRECONDITION, error)
}

pub(crate) fn internal(error: impl ToString) -> ttrpc::Error {
    get_rpc_status(Code::INTERNAL, error)
}

pub(crate) fn of(error: Error) -> ttrpc::Error {
    get_rpc_status(code(&error), error)
}

fn code(error: &Error) -> Code {
    match error {
        Error::Refused(_) | Error::Failed(_) | Error::Restarted(_) => Code::FAILED_PRECONDITION,
        Error::ExecNotStarted(_) | Error::ExecState { .. } => Code::FAILED_PRECONDITION,
        Error::Finished | Error::NoExec(_) | Error::Gone => Code::NOT_FOUND,
        Error::ExecExists(_) => Code::ALREADY_EXISTS,
        Error::NotAllowed(
            NotAllowed::Elsewhere { .. }
            | NotAllowed::NotStored { .. }
            | NotAllowed::Foreign { .. }
            | NotAllowed::Denied(_),
        ) => Code::PERMISSION_DENIED,
        Error::NotAllowed(NotAllowed::Store(error)) => of_store(error),
        Error::NotAllowed(NotAllowed::Unreadable { .. } | NotAllowed::Open(_)) => Code::FAILED_PRECONDITION,
        Error::NotAllowed(NotAllowed::Missing { .. }) => Code::NOT_FOUND,
        Error::Policy(policy::Error::NoHook { .. }) => Code::FAILED_PRECONDITION,
        Error::Policy(
            policy::Error::Forbidden { .. } | policy::Error::Denied { .. } | policy::Error::Above { .. },
        ) => Code::PERMISSION_DENIED,
        Error::Invalid(_)
        | Error::Policy(_)
        | Error::NotAllowed(NotAllowed::Relative(_) | NotAllowed::Reference(_)) => Code::INVALID_ARGUMENT,
        Error::Unclear(_) => Code::FAILED_PRECONDITION,
        Error::Outside(error) => match error.why {
            Why::Missing => Code::NOT_FOUND,
            Why::Untrusted => Code::DATA_LOSS,
            Why::TooSlow => Code::DEADLINE_EXCEEDED,
            Why::Other => Code::FAILED_PRECONDITION,
        },
        Error::Signal { source, .. } if source.kind() == ErrorKind::InvalidInput => Code::INVALID_ARGUMENT,
        Error::Stdio(error) => of_stdio(error),
        Error::Runtime(error) => of_runtime(error),
        Error::Checkpoint(error) => of_checkpoint(error),
        Error::Restore(error) => of_restore(error),
        Error::Bundle(_) | Error::Write { .. } | Error::Mount(_) => Code::INTERNAL,
        Error::Cgroup(_) | Error::Signal { .. } => Code::INTERNAL,
    }
}

fn of_stdio(error: &stdio::Error) -> Code {
    match error {
        stdio::Error::Scheme(_) => Code::INVALID_ARGUMENT,
        stdio::Error::Open { source, .. } if source.kind() == ErrorKind::NotFound => Code::NOT_FOUND,
        stdio::Error::Open { .. } | stdio::Error::Logger { .. } => Code::INTERNAL,
        stdio::Error::NotReady { .. } | stdio::Error::Console(_) | stdio::Error::Pipe(_) => Code::INTERNAL,
    }
}

/// What the runtime refuses has no code of its own; the stock shim says Unknown too.
fn of_runtime(error: &runtime::Error) -> Code {
    match error {
        runtime::Error::Failed { cause: Cause::AlreadyExists, .. } => Code::ALREADY_EXISTS,
        runtime::Error::Failed { .. } => Code::UNKNOWN,
        runtime::Error::TimedOut { .. } => Code::DEADLINE_EXCEEDED,
        runtime::Error::Aborted { .. } | runtime::Error::CriuDied { .. } => Code::ABORTED,
        runtime::Error::Spawn { .. } | runtime::Error::PidFile { .. } | runtime::Error::Files { .. } => {
            Code::INTERNAL
        }
    }
}

fn of_image(error: &image::Error) -> Code {
    match error {
        image::Error::Path(_) | image::Error::Hostile { .. } => Code::INVALID_ARGUMENT,
        image::Error::Folder { source, .. } if source.kind() == ErrorKind::NotFound => Code::NOT_FOUND,
        image::Error::Folder { source, .. } => of_io(source.kind()),
        image::Error::Foreign { .. }
        | image::Error::Unsealed(_)
        | image::Error::Busy(_)
        | image::Error::Open(_) => Code::FAILED_PRECONDITION,
        image::Error::Damaged { .. } => Code::DATA_LOSS,
        image::Error::Elsewhere { .. } | image::Error::Removed { .. } => Code::NOT_FOUND,
        image::Error::Store { problem, .. } => of_store(problem),
    }
}

fn of_store(error: &store::Error) -> Code {
    match error {
        store::Error::Unknown(_) => Code::NOT_FOUND,
        store::Error::NameTaken { .. } => Code::ALREADY_EXISTS,
        store::Error::Name(_) => Code::INVALID_ARGUMENT,
        store::Error::Full(_) | store::Error::Quota { .. } => Code::RESOURCE_EXHAUSTED,
        store::Error::Damaged { .. } => Code::DATA_LOSS,
        _ => Code::FAILED_PRECONDITION,
    }
}

fn of_rootfs(error: &rootfs::Error) -> Code {
    match error {
        rootfs::Error::Base { .. } | rootfs::Error::Shared | rootfs::Error::Failed(_) => {
            Code::FAILED_PRECONDITION
        }
        rootfs::Error::Untrusted(_) => Code::DATA_LOSS,
        rootfs::Error::Full(_) => Code::RESOURCE_EXHAUSTED,
        rootfs::Error::TimedOut(_) => Code::DEADLINE_EXCEEDED,
        rootfs::Error::Aborted => Code::ABORTED,
    }
}

fn of_io(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::RESOURCE_EXHAUSTED,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Code::FAILED_PRECONDITION,
        _ => Code::INTERNAL,
    }
}

fn of_checkpoint(error: &checkpoint::Error) -> Code {
    match error {
        checkpoint::Error::Image(error) => of_image(error),
        checkpoint::Error::NoCgroup
        | checkpoint::Error::Freeze(_)
        | checkpoint::Error::Spawning(_)
        | checkpoint::Error::NoCriu => Code::FAILED_PRECONDITION,
        checkpoint::Error::Runtime(error) => of_runtime(error),
        checkpoint::Error::Criu(_)
        | checkpoint::Error::Hook(_)
        | checkpoint::Error::Connections(_)
        | checkpoint::Error::Preflight(_)
        | checkpoint::Error::Execs(_) => Code::FAILED_PRECONDITION,
        checkpoint::Error::Rootfs(_) => Code::FAILED_PRECONDITION,
        checkpoint::Error::Shm(error) => of_io(error.source.kind()),
        checkpoint::Error::Store(error) | checkpoint::Error::Waits(error) => of_store(error),
        checkpoint::Error::Write { source, .. } => of_io(source.kind()),
    }
}

fn of_restore(error: &restore::Error) -> Code {
    match error {
        restore::Error::Image(error) | restore::Error::Unfit(fit::Error::Image(error)) => of_image(error),
        restore::Error::Unfit(_) | restore::Error::Mount(_) | restore::Error::NodeHook(_) => {
            Code::FAILED_PRECONDITION
        }
        restore::Error::Hold(_)
        | restore::Error::Filter(_)
        | restore::Error::Hooks(_)
        | restore::Error::Hook(_)
        | restore::Error::Anchor(_)
        | restore::Error::View(_)
        | restore::Error::Scratch(_)
        | restore::Error::Bundle(_) => Code::INTERNAL,
        restore::Error::Store(error) => of_store(error),
        restore::Error::NoRoom { .. } => Code::RESOURCE_EXHAUSTED,
        restore::Error::Stdio(error) => of_stdio(error),
        restore::Error::Runtime(error) => of_runtime(error),
        restore::Error::Criu(_) => Code::FAILED_PRECONDITION,
        restore::Error::Write(error) | restore::Error::NoCriu(error) => of_checkpoint(error),
        restore::Error::Rootfs(error) => of_rootfs(error),
        restore::Error::Shm(error) => of_io(error.source.kind()),
        restore::Error::Cgroup(_) | restore::Error::Sysctl(_) => Code::FAILED_PRECONDITION,
    }
}
