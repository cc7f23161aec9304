//! containerd's own API, as far as a test says how it answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use cryo_protos::ttrpc::Code;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::containerd::Containerd;

/// Before each message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// To calls of one method.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Message(Vec<u8>),
    /// Percent-encoded, as gRPC does it.
    Refuse(Code, &'static str),
    /// What no message is.
    Garbage,
    HangUp,
}

/// What was asked, in which namespace and for which lease.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Without the service's package: `Tasks/Create`.
    pub(crate) method: String,
    pub(crate) namespace: String,
    pub(crate) lease: String,
    pub(crate) message: Vec<u8>,
}

/// Serves until it is dropped. What nobody has said how to answer is answered with an empty
/// message.
pub(crate) struct Grpc {
    calls: Arc<Mutex<Vec<Call>>>,
    serving: JoinHandle<()>,
}

impl Reply {
    pub(crate) fn of(message: &impl Message) -> Reply {
        Reply::Message(message.encode_to_vec())
    }
}

impl Grpc {
    pub(crate) fn serve<const N: usize>(runtime: &Handle, replies: [(&'static str, Reply); N]) -> Grpc {
        let _ = std::fs::remove_file(Containerd::address());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (noted, replies) = (calls.clone(), Arc::new(HashMap::from(replies)));
        let _entered = runtime.enter();
        let listener = UnixListener::bind(Containerd::address()).unwrap();
        let serving = runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, replies) = (noted.clone(), replies.clone());
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (noted, replies) = (noted.clone(), replies.clone());
                        let answer = async move { answer(request, respond, &noted, &replies).await };
                        let answered = tokio::spawn(answer);
                        // One call after the other; the connection has to be driven meanwhile.
                        if !drive(&mut connection, answered).await {
                            return;
                        }
                    }
                });
            }
        });
        Grpc { calls, serving }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.method).collect()
    }

    /// The one call of a method.
    #[track_caller]
    pub(crate) fn call(&self, method: &str) -> Call {
        let mut found = self.calls().into_iter().filter(|call| call.method == method);
        let call = found.next().unwrap_or_else(|| panic!("{method} isn't among {:?}", self.methods()));
        assert!(found.next().is_none(), "{method} was called twice");
        call
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(Containerd::address());
    }
}

impl Call {
    #[track_caller]
    pub(crate) fn read<M: Message + Default>(&self) -> M {
        M::decode(&*self.message).unwrap()
    }
}

/// False if the client is to be left alone.
async fn drive<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    connection: &mut h2::server::Connection<T, Bytes>,
    mut answered: JoinHandle<bool>,
) -> bool {
    std::future::poll_fn(|context| {
        use std::task::Poll;
        let _ = connection.poll_closed(context);
        match std::pin::Pin::new(&mut answered).poll(context) {
            Poll::Ready(answered) => Poll::Ready(answered.unwrap_or(false)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    calls: &Mutex<Vec<Call>>,
    replies: &HashMap<&str, Reply>,
) -> bool {
    let (head, mut body) = request.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let method = head.uri.path().rsplit('.').next().unwrap_or_default().to_owned();
    let mut message = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        message.extend_from_slice(&chunk);
    }
    let reply = replies.get(method.as_str()).cloned();
    calls.lock().unwrap().push(Call {
        namespace: header("containerd-namespace").to_owned(),
        lease: header("containerd-lease").to_owned(),
        message: message.get(FRAME..).unwrap_or_default().to_vec(),
        method,
    });
    let (body, code, words) = match reply.unwrap_or(Reply::Message(Vec::new())) {
        Reply::Message(message) => (framed(&message), 0, ""),
        Reply::Garbage => (vec![1, 2, 3], 0, ""),
        Reply::Refuse(code, words) => (Vec::new(), code as u32, words),
        Reply::HangUp => return false,
    };
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(body.into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.to_string().parse().unwrap());
    trailers.insert("grpc-message", words.parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    true
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}
