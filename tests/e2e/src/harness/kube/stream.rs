//! Streams of a container's process or of a pod's port, by the CRI's streaming server: each
//! message of a websocket begins with the number of its channel.

use std::net::TcpStream;
use std::sync::Mutex;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::super::api::{RUNTIME, call};
use super::super::failure::{During, Failure, Outcome};
use super::super::output::Output;
use super::super::slot::Slot;
use super::cri::{AttachRequest, ExecRequest, PortForwardRequest, words};
use super::{Pod, PodContainer};

const PROTOCOL: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;
const STATUS: usize = 3;
const SIZE: u8 = 4;
const CHANNELS: usize = 5;

type Sink = SplitSink<WebSocketStream<tokio::net::TcpStream>, Message>;

struct Channels {
    sink: Mutex<Option<Sink>>,
    outputs: [Output; CHANNELS],
}

impl Channels {
    #[track_caller]
    fn open(slot: &Slot, url: &str, query: &str) -> Outcome<Self> {
        let address = url.strip_prefix("http://").unwrap_or(url);
        let host = address.split('/').next().unwrap_or_default().to_owned();
        let socket = slot.in_network(|| Ok(TcpStream::connect(&host)?)).during(|| url.into())?;
        socket.set_nonblocking(true)?;
        let mut request = format!("ws://{address}{query}").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
        let connected = RUNTIME.block_on(async {
            let socket = tokio::net::TcpStream::from_std(socket).map_err(tungstenite::Error::Io)?;
            client_async(request, socket).await
        });
        let (sink, mut messages) = connected.during(|| url.into())?.0.split();
        let outputs: [Output; CHANNELS] = std::array::from_fn(|_| Output::fed());
        let fed = outputs.clone();
        RUNTIME.spawn(async move {
            // An error is an end, too; who waits for more says what is missing.
            while let Some(Ok(message)) = messages.next().await {
                if let Message::Binary(bytes) = message
                    && let Some((channel, bytes)) = bytes.split_first()
                    && let Some(output) = fed.get(usize::from(*channel))
                {
                    output.add(bytes);
                }
            }
            fed.iter().for_each(Output::end);
        });
        Ok(Channels { sink: Mutex::new(Some(sink)), outputs })
    }

    #[track_caller]
    fn write(&self, channel: u8, bytes: &[u8]) -> Outcome {
        let mut sink = self.sink.lock().map_err(|_| Failure::new("a writer panicked"))?;
        let sink = sink.as_mut().ok_or_else(|| Failure::new("the connection is closed"))?;
        let message = Message::Binary(Bytes::from([&[channel], bytes].concat()));
        Ok(RUNTIME.block_on(sink.send(message))?)
    }

    fn close(&self) {
        if let Ok(mut sink) = self.sink.lock()
            && let Some(mut sink) = sink.take()
        {
            // The other side may have closed it before.
            let _ = RUNTIME.block_on(sink.close());
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.close();
    }
}

/// Of a process.
pub(crate) struct Streams(Channels);

impl Streams {
    #[track_caller]
    pub(super) fn of_exec(
        container: &PodContainer<'_, '_>,
        command: &[&str],
        terminal: bool,
    ) -> Outcome<Self> {
        let request = ExecRequest {
            container_id: container.id.clone(),
            cmd: words(command),
            tty: terminal,
            stdin: true,
            stdout: true,
            stderr: !terminal,
        };
        let url = call(container.cri().runtime().exec(request))?.url;
        Ok(Streams(Channels::open(slot(container.pod()), &url, "")?))
    }

    #[track_caller]
    pub(super) fn attached(container: &PodContainer<'_, '_>) -> Outcome<Self> {
        let config = &container.plan.config;
        let request = AttachRequest {
            container_id: container.id.clone(),
            stdin: config.stdin,
            tty: config.tty,
            stdout: true,
            stderr: !config.tty,
        };
        let url = call(container.cri().runtime().attach(request))?.url;
        Ok(Streams(Channels::open(slot(container.pod()), &url, "")?))
    }

    #[track_caller]
    pub(crate) fn write(&self, bytes: &[u8]) -> Outcome {
        self.0.write(STDIN, bytes)
    }

    #[track_caller]
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Outcome {
        self.0.write(SIZE, json!({ "Width": columns, "Height": rows }).to_string().as_bytes())
    }

    pub(crate) fn stdout(&self) -> &Output {
        &self.0.outputs[STDOUT]
    }

    pub(crate) fn stderr(&self) -> &Output {
        &self.0.outputs[STDERR]
    }

    /// Goes away, as a client does: that is also the end of its input.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Waits for the end of an added process, and tells its exit status.
    #[track_caller]
    pub(crate) fn wait(&self) -> Outcome<i32> {
        let output = &self.0.outputs[STATUS];
        output.wait_for_end()?;
        let said: Value = serde_json::from_slice(&output.bytes()).during(|| output.text())?;
        if said["status"] == "Success" {
            return Ok(0);
        }
        let code = said["details"]["causes"][0]["message"].as_str().and_then(|code| code.parse().ok());
        code.ok_or_else(|| Failure::new(format!("no exit status in {said}")))
    }
}

/// A port of a pod.
pub(crate) struct Forwarded(Channels);

impl Forwarded {
    #[track_caller]
    pub(super) fn to(pod: &Pod<'_>, port: u16) -> Outcome<Self> {
        let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![i32::from(port)] };
        let url = call(pod.plan.kubelet.cri().runtime().port_forward(request))?.url;
        Ok(Forwarded(Channels::open(slot(pod), &url, &format!("?port={port}"))?))
    }

    #[track_caller]
    pub(crate) fn write(&self, bytes: &[u8]) -> Outcome {
        self.0.write(STDIN, bytes)
    }

    /// What comes back, after the two bytes of the port's number.
    pub(crate) fn output(&self) -> &Output {
        &self.0.outputs[0]
    }

    /// Why it doesn't work, after the same two bytes.
    pub(crate) fn errors(&self) -> &Output {
        &self.0.outputs[1]
    }
}

fn slot<'p>(pod: &'p Pod<'_>) -> &'p Slot {
    &pod.plan.kubelet.bench.slot
}
