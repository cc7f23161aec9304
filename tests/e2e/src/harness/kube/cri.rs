//! Calls of the CRI, as the kubelet makes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_client::tonic::transport::Channel;
pub(crate) use k8s_cri::v1::*;
use runtime_service_client::RuntimeServiceClient;

use super::super::api::{Answer, Api, DEADLINE, RUNTIME, call, call_within};

/// ExecSync answers up to 16 MiB of each stream.
const LONGEST_ANSWER: usize = 40 << 20;

#[derive(Clone)]
pub(crate) struct Cri {
    channel: Channel,
}

impl Cri {
    /// On the socket that containerd's own API is on.
    pub(crate) fn by(api: &Api) -> Self {
        Cri { channel: api.channel.clone() }
    }

    /// For calls that have no name of their own here; see [`super::super::api::call`].
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER)
    }

    pub(crate) fn images(&self) -> image_service_client::ImageServiceClient<Channel> {
        image_service_client::ImageServiceClient::new(self.channel.clone())
    }

    pub(crate) fn version(&self) -> Answer<VersionResponse> {
        call(self.runtime().version(VersionRequest::default()))
    }

    pub(crate) fn status(&self) -> Answer<StatusResponse> {
        call(self.runtime().status(StatusRequest { verbose: true }))
    }

    /// Whether both the runtime and the network say that they are.
    pub(crate) fn is_ready(&self) -> bool {
        let Ok(StatusResponse { status: Some(status), .. }) = self.status() else { return false };
        status.conditions.iter().filter(|one| one.r#type.ends_with("Ready")).all(|one| one.status)
    }

    pub(crate) fn run_pod(&self, config: PodSandboxConfig, handler: &str) -> Answer<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        Ok(call(self.runtime().run_pod_sandbox(request))?.pod_sandbox_id)
    }

    pub(crate) fn pods(&self) -> Answer<Vec<PodSandbox>> {
        Ok(call(self.runtime().list_pod_sandbox(ListPodSandboxRequest::default()))?.items)
    }

    pub(crate) fn stop_pod(&self, id: &str) -> Answer<()> {
        call(self.runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.into() })).map(drop)
    }

    pub(crate) fn remove_pod(&self, id: &str) -> Answer<()> {
        call(self.runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.into() }))
            .map(drop)
    }

    pub(crate) fn pod_status(&self, id: &str) -> Answer<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
        call(self.runtime().pod_sandbox_status(request))
    }

    pub(crate) fn create(
        &self,
        pod: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Answer<String> {
        let (config, sandbox_config) = (Some(config), Some(sandbox));
        let request = CreateContainerRequest { pod_sandbox_id: pod.into(), config, sandbox_config };
        Ok(call(self.runtime().create_container(request))?.container_id)
    }

    pub(crate) fn start(&self, id: &str) -> Answer<()> {
        call(self.runtime().start_container(StartContainerRequest { container_id: id.into() })).map(drop)
    }

    /// With as many seconds as it has to end by itself.
    pub(crate) fn stop(&self, id: &str, grace: i64) -> Answer<()> {
        let request = StopContainerRequest { container_id: id.into(), timeout: grace };
        call(self.runtime().stop_container(request)).map(drop)
    }

    pub(crate) fn remove(&self, id: &str) -> Answer<()> {
        call(self.runtime().remove_container(RemoveContainerRequest { container_id: id.into() })).map(drop)
    }

    pub(crate) fn containers(&self, pod: &str) -> Answer<Vec<Container>> {
        let filter = ContainerFilter { pod_sandbox_id: pod.into(), ..Default::default() };
        Ok(call(self.runtime().list_containers(ListContainersRequest { filter: Some(filter) }))?.containers)
    }

    pub(crate) fn container_status(&self, id: &str) -> Answer<ContainerStatusResponse> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
        call(self.runtime().container_status(request))
    }

    pub(crate) fn exec_sync(&self, id: &str, command: &[&str], timeout: i64) -> Answer<ExecSyncResponse> {
        let request = ExecSyncRequest { container_id: id.into(), cmd: words(command), timeout };
        call(self.runtime().exec_sync(request))
    }

    pub(crate) fn checkpoint(&self, id: &str, location: &str) -> Answer<()> {
        // The kubelet gives it two minutes and more.
        const USUAL: Duration = Duration::from_secs(120);
        let request =
            CheckpointContainerRequest { container_id: id.into(), location: location.into(), timeout: 0 };
        call_within(USUAL.max(DEADLINE), self.runtime().checkpoint_container(request)).map(drop)
    }

    /// What is told of containers and pods from now on.
    pub(crate) fn events(&self) -> Events {
        let mut runtime = self.runtime();
        let events = Events::default();
        let told = events.0.clone();
        // Nothing is answered before the first event.
        RUNTIME.spawn(async move {
            let Ok(answer) = runtime.get_container_events(GetEventsRequest {}).await else { return };
            let mut stream = answer.into_inner();
            while let Ok(Some(event)) = stream.message().await {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        events
    }

    pub(crate) fn image(&self, name: &str) -> Answer<Option<Image>> {
        let request = ImageStatusRequest { image: Some(image_of(name)), verbose: false };
        Ok(call(self.images().image_status(request))?.image)
    }

    pub(crate) fn pull(&self, name: &str) -> Answer<String> {
        let request = PullImageRequest { image: Some(image_of(name)), ..Default::default() };
        Ok(call(self.images().pull_image(request))?.image_ref)
    }
}

#[derive(Default)]
pub(crate) struct Events(Arc<Mutex<Vec<ContainerEventResponse>>>);

impl Events {
    /// What has happened to one container, or to a pod as such, in its order.
    pub(crate) fn of(&self, id: &str) -> Vec<ContainerEventType> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|event| event.container_id == id)
            .map(ContainerEventResponse::container_event_type)
            .collect()
    }
}

pub(crate) fn image_of(name: &str) -> ImageSpec {
    ImageSpec { image: name.into(), ..Default::default() }
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
