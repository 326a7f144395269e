//! Requests over real sockets. Each runs on a thread of its own and hands its bytes over as they come, a few parts ahead
//! at most, so that the one thread of the logic waits for all of them at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::edge::{Body, Request, Response, Transport};
use headwater::source::LocalFuture;

/// How long a connection, and the head of an answer, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one part.
const PART_BYTES: usize = 128 << 10;
/// Parts that may wait to be taken.
const PARTS_AHEAD: usize = 4;

/// The client.
pub(super) struct Http(ureq::Agent);

impl Http {
    pub(super) fn new() -> Self {
        let config = ureq::Agent::config_builder()
            // Redirects and statuses are the library's affair: it holds every host against the declared ones.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(HEAD_TIMEOUT))
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.new_agent())
    }
}

/// What a request's thread hands over.
enum Message {
    Head(u16, Vec<(String, String)>),
    Part(Vec<u8>),
    End,
    Failed(String),
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    waker: Option<Waker>,
    /// Nobody listens any more.
    gone: bool,
}

/// Between a request's thread and the logic's.
#[derive(Default)]
struct Channel {
    queue: Mutex<Queue>,
    taken: Condvar,
}

impl Channel {
    /// A thread that panicked left the queue as it was, which is whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message over; `false` once nobody listens.
    fn give(&self, message: Message) -> bool {
        let mut queue = self.lock();
        while queue.messages.len() >= PARTS_AHEAD && !queue.gone {
            queue = self.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.messages.push_back(message);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        !queue.gone
    }

    async fn take(&self) -> Message {
        poll_fn(|context| {
            let mut queue = self.lock();
            match queue.messages.pop_front() {
                Some(message) => {
                    self.taken.notify_one();
                    Poll::Ready(message)
                }
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The listening end: dropping it ends the request.
struct Listening(Arc<Channel>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.lock().gone = true;
        self.0.taken.notify_one();
    }
}

impl Body for Listening {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async {
            match self.0.take().await {
                Message::Part(bytes) => Ok(Some(bytes)),
                Message::Failed(words) => Err(Error::new(ErrorKind::Network, words)),
                Message::End | Message::Head(..) => {
                    // Whoever asks again after the end hears of the end again.
                    self.0.lock().messages.push_back(Message::End);
                    Ok(None)
                }
            }
        })
    }
}

impl Transport for Http {
    fn get<'a>(&'a self, request: &'a Request) -> LocalFuture<'a, Result<Response>> {
        Box::pin(async move {
            let channel = Arc::new(Channel::default());
            let listening = Listening(Arc::clone(&channel));
            let mut sent = self.0.get(&request.url);
            if let Some(range) = request.range {
                sent = sent.header("Range", format!("bytes={}-{}", range.first, range.last));
            }
            if let Some(token) = &request.bearer {
                sent = sent.header("Authorization", token.header_value());
            }
            thread::spawn(move || run(sent, &channel));
            match listening.0.take().await {
                Message::Head(status, headers) => {
                    Ok(Response { status, url: request.url.clone(), headers, body: Box::new(listening) })
                }
                Message::Failed(words) => Err(Error::new(ErrorKind::Network, words)),
                Message::Part(_) | Message::End => Err(Error::new(ErrorKind::Internal, "an answer without a head")),
            }
        })
    }
}

/// The request's own thread.
fn run(request: ureq::RequestBuilder<ureq::typestate::WithoutBody>, channel: &Channel) {
    let answer = match request.call() {
        Ok(answer) => answer,
        Err(error) => {
            channel.give(Message::Failed(error.to_string()));
            return;
        }
    };
    let text = |value: &ureq::http::HeaderValue| value.to_str().map(str::to_owned).ok();
    let headers = answer.headers().iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
    if !channel.give(Message::Head(answer.status().as_u16(), headers.collect())) {
        return;
    }
    let mut body = answer.into_body().into_reader();
    let mut part = vec![0; PART_BYTES];
    loop {
        let message = match body.read(&mut part) {
            Ok(0) => Message::End,
            Ok(len) => Message::Part(part.iter().take(len).copied().collect()),
            Err(error) => Message::Failed(error.to_string()),
        };
        let last = matches!(message, Message::End | Message::Failed(_));
        if !channel.give(message) || last {
            return;
        }
    }
}
