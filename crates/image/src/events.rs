//! containerd's events about images.

use std::time::Duration;

use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{ImageCreate, ImageUpdate, SubscribeRequest};
use containerd_client::tonic::Streaming;
use containerd_client::types::Envelope;
use prost::Message;

use crate::error::ImageError;
use crate::store::chain;

const CREATE: &str = "/images/create";
const UPDATE: &str = "/images/update";
/// How long containerd may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// An image was made or names something else now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEvent {
    pub namespace: String,
    pub image: String,
}

/// Calls `heard` for each event about an image of any namespace, until
/// containerd goes away. `connected` is called when there is a connection;
/// events are heard from a moment after that.
///
/// # Errors
/// Always, in the end: when containerd does not answer any more.
pub async fn image_events(
    socket: &str,
    connected: impl FnOnce(),
    mut heard: impl FnMut(ImageEvent),
) -> ImageError {
    let failed = |reason: String| ImageError::Containerd {
        address: socket.into(),
        what: "events".into(),
        reason,
    };
    let connecting = containerd_client::connect(socket);
    let channel = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return failed(chain(&error)),
        Err(_) => return failed("no answer".into()),
    };
    connected();
    let filters = [CREATE, UPDATE].map(|topic| format!("topic=={topic:?}"));
    let request = SubscribeRequest {
        filters: filters.to_vec(),
    };
    // Answered only when there is something to tell.
    let stream = EventsClient::new(channel).subscribe(request).await;
    let mut stream: Streaming<Envelope> = match stream {
        Ok(stream) => stream.into_inner(),
        Err(status) => return failed(status.message().into()),
    };
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => {
                if let Some(event) = event(envelope) {
                    heard(event);
                }
            }
            Ok(None) => return failed("it has ended the stream".into()),
            Err(status) => return failed(status.message().into()),
        }
    }
}

fn event(envelope: Envelope) -> Option<ImageEvent> {
    let value = envelope.event?.value;
    let image = match envelope.topic.as_str() {
        CREATE => ImageCreate::decode(value.as_slice()).ok()?.name,
        UPDATE => ImageUpdate::decode(value.as_slice()).ok()?.name,
        _ => return None,
    };
    Some(ImageEvent {
        namespace: envelope.namespace,
        image,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Any;

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            namespace: "default".into(),
            topic: topic.into(),
            event: Some(Any {
                type_url: String::new(),
                value,
            }),
            ..Envelope::default()
        }
    }

    #[test]
    fn an_event_names_the_image() {
        let image = ImageCreate {
            name: "a:1".into(),
            ..ImageCreate::default()
        };
        let found = event(envelope(CREATE, image.encode_to_vec())).expect("an event");
        assert_eq!(
            (found.namespace.as_str(), found.image.as_str()),
            ("default", "a:1")
        );
    }

    #[test]
    fn what_is_no_event_about_an_image_is_passed_over() {
        assert_eq!(event(envelope("/tasks/start", Vec::new())), None);
        assert_eq!(event(envelope(UPDATE, vec![0xff; 3])), None);
        assert_eq!(event(Envelope::default()), None);
    }
}
