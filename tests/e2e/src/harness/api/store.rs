//! Records and data beside the tasks: containers, snapshots, images, leases, content.

use std::collections::HashMap;

use containerd_client::services::v1 as wire;
use containerd_client::services::v1::snapshots;
use containerd_client::types::Mount;
use prost_types::FieldMask;

use super::{Answer, Api, RUNTIME, call};

const SNAPSHOTTER: &str = "overlayfs";

impl Api {
    pub(crate) fn create_container(&self, container: wire::Container) -> Answer<()> {
        let mut client = wire::containers_client::ContainersClient::new(self.channel.clone());
        let message = wire::CreateContainerRequest { container: Some(container) };
        call(client.create(self.request(message)))?;
        Ok(())
    }

    pub(crate) fn update_container(&self, container: wire::Container) -> Answer<()> {
        let mut client = wire::containers_client::ContainersClient::new(self.channel.clone());
        let update_mask = Some(FieldMask { paths: vec!["spec".into()] });
        let message = wire::UpdateContainerRequest { container: Some(container), update_mask };
        call(client.update(self.request(message)))?;
        Ok(())
    }

    pub(crate) fn list_containers(&self) -> Answer<Vec<wire::Container>> {
        let mut client = wire::containers_client::ContainersClient::new(self.channel.clone());
        Ok(call(client.list(self.request(wire::ListContainersRequest::default())))?.containers)
    }

    pub(crate) fn delete_container(&self, id: &str) -> Answer<()> {
        let mut client = wire::containers_client::ContainersClient::new(self.channel.clone());
        call(client.delete(self.request(wire::DeleteContainerRequest { id: id.into() })))
    }

    pub(crate) fn prepare_snapshot(&self, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        let mut client = snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        let message = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.into(),
            parent: parent.into(),
            // Else it is garbage until its container's record exists.
            labels: HashMap::from([("containerd.io/gc.root".into(), "cryo-e2e".into())]),
        };
        Ok(call(client.prepare(self.request(message)))?.mounts)
    }

    pub(crate) fn snapshot_mounts(&self, key: &str) -> Answer<Vec<Mount>> {
        let mut client = snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        let message = snapshots::MountsRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        Ok(call(client.mounts(self.request(message)))?.mounts)
    }

    /// Names of all snapshots, children before their parents.
    pub(crate) fn list_snapshots(&self) -> Answer<Vec<String>> {
        let mut client = snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        let message =
            snapshots::ListSnapshotsRequest { snapshotter: SNAPSHOTTER.into(), filters: Vec::new() };
        let request = self.request(message);
        let infos = RUNTIME.block_on(async {
            let mut stream = client.list(request).await?.into_inner();
            let mut infos = Vec::new();
            while let Some(batch) = stream.message().await? {
                infos.extend(batch.info);
            }
            Ok::<_, containerd_client::tonic::Status>(infos)
        })?;
        let mut infos = infos;
        infos.sort_by_key(|info| info.kind);
        Ok(infos.into_iter().map(|info| info.name).collect())
    }

    pub(crate) fn remove_snapshot(&self, key: &str) -> Answer<()> {
        let mut client = snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone());
        let message = snapshots::RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        call(client.remove(self.request(message)))
    }

    pub(crate) fn list_images(&self) -> Answer<Vec<wire::Image>> {
        let mut client = wire::images_client::ImagesClient::new(self.channel.clone());
        Ok(call(client.list(self.request(wire::ListImagesRequest::default())))?.images)
    }

    pub(crate) fn delete_image(&self, name: &str) -> Answer<()> {
        let mut client = wire::images_client::ImagesClient::new(self.channel.clone());
        let message = wire::DeleteImageRequest { name: name.into(), sync: true, target: None };
        call(client.delete(self.request(message)))
    }

    /// Makes a lease and calls that belong to it.
    pub(crate) fn with_lease(&self, id: &str) -> Answer<Self> {
        let mut client = wire::leases_client::LeasesClient::new(self.channel.clone());
        let message = wire::CreateRequest { id: id.into(), labels: HashMap::new() };
        call(client.create(self.request(message)))?;
        Ok(Api { lease: Some(id.into()), ..self.clone() })
    }

    pub(crate) fn delete_leases(&self) -> Answer<()> {
        let mut client = wire::leases_client::LeasesClient::new(self.channel.clone());
        let leases = call(client.list(self.request(wire::ListRequest { filters: Vec::new() })))?.leases;
        for lease in leases {
            call(client.delete(self.request(wire::DeleteRequest { id: lease.id, sync: true })))?;
        }
        Ok(())
    }
}
