//! Single calls to containerd's own API, which is gRPC. A checkpoint needs a few of them;
//! a gRPC library would be as big as the rest of the shim.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

/// Before each message: whether it is compressed, and its length.
const FRAME: usize = 5;
/// What may be on its way at once.
const WINDOW: u32 = 1 << 20;
/// More than any answer that is asked for here.
const LONGEST_ANSWER: usize = 64 << 20;
const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const ALREADY_EXISTS: u32 = 6;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    Refused(String),
    #[error("containerd's answer can't be read: {0}")]
    Garbled(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] h2::Error),
}

pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    namespace: String,
    /// What is made belongs to it, until it is given back.
    lease: Option<String>,
    connection: AbortHandle,
}

impl Client {
    /// `address` is containerd's gRPC socket.
    pub(crate) async fn connect(address: &str, namespace: &str) -> Result<Client, Error> {
        let stream = UnixStream::connect(address.trim_start_matches("unix://")).await?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .handshake(stream)
            .await?;
        let connection = tokio::spawn(async move {
            // Whoever waits for an answer learns of the end as well.
            let _ = connection.await;
        });
        let namespace = namespace.to_owned();
        Ok(Client { requests, namespace, lease: None, connection: connection.abort_handle() })
    }

    pub(crate) fn hold(&mut self, lease: &str) {
        self.lease = Some(lease.to_owned());
    }

    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, Error> {
        let mut answers = self.stream(method, message).await?;
        let answer = answers.next().await?.ok_or_else(|| Error::Garbled("there is none".to_owned()))?;
        match answers.next::<A>().await? {
            None => Ok(answer),
            Some(_) => Err(Error::Garbled("it isn't one message".to_owned())),
        }
    }

    /// A call with any number of answers.
    pub(crate) async fn stream(&self, method: &str, message: &impl Message) -> Result<Answers, Error> {
        let request = Request::post(format!("http://containerd/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", &self.namespace);
        let leased =
            self.lease.iter().fold(request, |request, lease| request.header("containerd-lease", lease));
        let request = leased.body(()).map_err(|error| Error::Garbled(error.to_string()))?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut body) = requests.send_request(request, false)?;
        body.send_data(frame(message), true)?;
        let (head, body) = answer.await?.into_parts();
        // An error without a message comes in the head alone.
        check(&head.headers)?;
        Ok(Answers { body, data: BytesMut::new() })
    }
}

/// What comes back, one message after the other.
pub(crate) struct Answers {
    body: RecvStream,
    data: BytesMut,
}

impl Answers {
    pub(crate) async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, Error> {
        loop {
            if let Some(answer) = unframe(&mut self.data)? {
                return Ok(Some(answer));
            }
            let Some(chunk) = poll_fn(|context| self.body.poll_data(context)).await else { break };
            let chunk = chunk?;
            self.body.flow_control().release_capacity(chunk.len())?;
            self.data.put(chunk);
        }
        let trailers = poll_fn(|context| self.body.poll_trailers(context)).await?;
        check(&trailers.unwrap_or_default())?;
        if self.data.is_empty() { Ok(None) } else { Err(Error::Garbled("it is cut short".to_owned())) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn frame(message: &impl Message) -> Bytes {
    let mut data = BytesMut::with_capacity(FRAME + message.encoded_len());
    data.put_u8(0);
    data.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    data.put_slice(&message.encode_to_vec());
    data.freeze()
}

/// The next message, if all of it is there.
fn unframe<A: Message + Default>(data: &mut BytesMut) -> Result<Option<A>, Error> {
    let Some((head, rest)) = data.split_first_chunk::<FRAME>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > LONGEST_ANSWER {
        return Err(Error::Garbled("it isn't a plain message, or too long".to_owned()));
    }
    if rest.len() < length {
        return Ok(None);
    }
    data.advance(FRAME);
    let message = A::decode(data.split_to(length)).map_err(|error| Error::Garbled(error.to_string()))?;
    Ok(Some(message))
}

fn check(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let message = || {
        let written = text("grpc-message").unwrap_or_default();
        percent_encoding::percent_decode_str(written).decode_utf8_lossy().into_owned()
    };
    match text("grpc-status").map(|status| status.parse().unwrap_or(u32::MAX)) {
        None | Some(OK) => Ok(()),
        Some(NOT_FOUND) => Err(Error::NotFound(message())),
        Some(ALREADY_EXISTS) => Err(Error::AlreadyExists(message())),
        Some(_) => Err(Error::Refused(message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_frame() {
        let framed = frame(&"text".to_owned());
        assert_eq!(&framed[..FRAME], [0, 0, 0, 0, 6]);
        let mut two = BytesMut::from(&[&framed[..], &framed[..]].concat()[..]);
        for _ in 0..2 {
            assert_eq!(unframe::<String>(&mut two).unwrap().as_deref(), Some("text"));
        }
        assert_eq!(unframe::<String>(&mut two).unwrap(), None);
    }

    #[test]
    fn what_is_no_plain_message_is_garbled_and_what_isnt_whole_waits() {
        let read = |data: &[u8]| unframe::<String>(&mut BytesMut::from(data));
        for data in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 10]] {
            assert_eq!(read(data).unwrap(), None, "{data:?}");
        }
        for data in [&[1, 0, 0, 0, 0][..], &[0, 255, 0, 0, 0], &[0, 0, 0, 0, 1, 10]] {
            assert!(matches!(read(data), Err(Error::Garbled(_))), "{data:?}");
        }
    }

    #[test]
    fn an_error_in_the_headers_is_one() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers).is_ok());
        headers.insert("grpc-status", "5".parse().unwrap());
        assert!(matches!(check(&headers), Err(Error::NotFound(_))));
        headers.insert("grpc-status", "7".parse().unwrap());
        headers.insert("grpc-message", "50%25 of it%E2%80%A6".parse().unwrap());
        assert_eq!(check(&headers).unwrap_err().to_string(), "50% of it…");
    }
}
