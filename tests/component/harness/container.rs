//! A container that a shim was started for, until both are gone.

mod requests;
mod sight;

use std::fs;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cryo_protos::api::{ConnectRequest, ConnectResponse};
use serde_json::json;
use tokio::runtime::Handle;

use super::blueprint::Bundle;
use super::client::{Client, Refusal};
use super::containerd::Containerd;
use super::wait::{PATIENCE, until_within};
use super::world::World;

#[derive(Clone)]
pub(crate) struct Container {
    inner: Arc<Inner>,
    /// The connection this handle asks through.
    client: Client,
}

pub(crate) struct Inner {
    runtime: Handle,
    containerd: Arc<Containerd>,
    pub(crate) bundle: Bundle,
    pub(crate) address: String,
    pub(crate) shim: u32,
    /// containerd has removed the bundle and forgotten it.
    forgotten: AtomicBool,
}

/// A request that isn't answered yet.
pub(crate) struct Pending<T>(JoinHandle<Result<T, Refusal>>);

type Answer<T> = Result<T, Refusal>;

impl Deref for Container {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Container {
    #[track_caller]
    pub(crate) fn boot(world: &World, bundle: Bundle) -> Container {
        let dialect = bundle.call.dialect;
        let address = bundle.call.start().address(dialect);
        Container::at(world, bundle, address)
    }

    /// For a shim that runs already.
    #[track_caller]
    pub(crate) fn at(world: &World, bundle: Bundle, address: String) -> Container {
        // containerd writes it; what `delete` and a restarted containerd look for.
        fs::write(
            bundle.path.join("bootstrap.json"),
            json!({ "version": 2, "address": address }).to_string(),
        )
        .unwrap();
        let client = Client::connect(world.runtime(), &address).unwrap();
        let connected: ConnectResponse = client.call("Connect", &ConnectRequest::default()).unwrap();
        let inner = Inner {
            runtime: world.runtime().clone(),
            containerd: world.containerd.clone(),
            bundle,
            address,
            shim: connected.shim_pid,
            forgotten: AtomicBool::new(false),
        };
        let container = Container { inner: Arc::new(inner), client };
        world.note_container(&container);
        container
    }

    /// The same container through a connection of its own.
    #[track_caller]
    pub(crate) fn reconnected(&self) -> Container {
        self.through(Client::connect(&self.runtime, &self.address).unwrap())
    }

    pub(crate) fn through(&self, client: Client) -> Container {
        Container { inner: self.inner.clone(), client }
    }

    pub(crate) fn with_patience(&self, patience: Duration) -> Container {
        self.through(self.client.clone().with_patience(patience))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks without waiting for the answer.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Container) -> Answer<T> + Send + 'static,
    ) -> Pending<T> {
        let container = self.clone();
        Pending(std::thread::spawn(move || request(&container)))
    }

    /// The end of every test: whatever happened, it can be killed and deleted.
    #[track_caller]
    pub(crate) fn clean_up(&self) {
        if self.is_forgotten() {
            return;
        }
        if !self.shim_is_alive() {
            let said = self.delete_after_death();
            assert!(said.status.success(), "delete failed: {}", said.stderr);
            return;
        }
        let container = self.reconnected();
        if container.state().is_ok() {
            // It may have ended by itself.
            let _ = container.kill_all(9);
            let begun = Instant::now();
            container.wait().unwrap_or_else(|refusal| panic!("after {:?}: {refusal}", begun.elapsed()));
            container.delete().unwrap_or_else(|refusal| panic!("{} can't be deleted: {refusal}", self.id()));
        }
        self.forget();
    }

    /// Once every container of a shim is gone it ends, and takes its socket with it.
    #[track_caller]
    pub(crate) fn expect_shim_gone(&self) {
        // Another one that shared it may have asked before.
        if let Ok(client) = Client::connect(&self.runtime, &self.address) {
            let _ = self.through(client).shutdown();
        }
        until_within(PATIENCE, &format!("the shim of {} has ended", self.id()), || !self.shim_is_alive());
        assert!(!self.socket().exists(), "the shim has left its socket");
    }
}

impl<T> Pending<T> {
    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    #[track_caller]
    pub(crate) fn answer(self) -> Answer<T> {
        self.0.join().unwrap()
    }
}
