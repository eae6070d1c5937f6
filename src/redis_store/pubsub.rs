//! Messages between gateways (pub/sub). One that is lost is made good by a new generation.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use redis::Cmd;
use tokio::time::timeout;

pub use super::subscriber::Subscriber;
use super::{
    RedisStore, connection,
    failure::StoreUnavailable,
    subscriber::BEATS,
    timing::{BEAT, CONNECT},
};

/// A subscription on which no beat comes for so long is dead.
const SILENCE: Duration = Duration::from_secs(3);
/// Before the boot of a process that has handed over.
const RETIRED: &str = "-";

impl RedisStore {
    /// What a message of this gateway looks like; scripts publish it, too.
    pub fn message(&self, text: &str) -> String {
        let retired = if self.is_retired.load(Relaxed) { RETIRED } else { "" };
        format!("{retired}{} {text}", self.boot)
    }

    /// # Errors
    /// The store does not answer.
    pub async fn publish(&self, channel: &str, text: &str) -> Result<(), StoreUnavailable> {
        let _: u64 = self.run(Cmd::publish(channel, self.message(text))).await?;
        Ok(())
    }

    /// Listens for ever. A lost subscription may have lost messages.
    pub(super) async fn listen(self: Arc<Self>) {
        loop {
            let client = timeout(CONNECT, connection::client(&self.address)).await;
            if let Ok(Ok(client)) = client
                && let Ok(Ok(mut channels)) = timeout(CONNECT, client.get_async_pubsub()).await
                && let Ok(Ok(())) = timeout(CONNECT, channels.subscribe(self.channels())).await
            {
                self.generation.send_modify(|generation| *generation += 1);
                let mut messages = channels.on_message();
                while let Ok(Some(message)) = timeout(SILENCE, messages.next()).await {
                    let text: String = message.get_payload().unwrap_or_default();
                    self.hear(message.get_channel_name(), &text);
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    fn channels(&self) -> Vec<&'static str> {
        let listeners = self.listeners.get().into_iter().flatten();
        listeners.map(|listener| listener.channel).chain([BEATS]).collect()
    }

    fn hear(&self, channel: &str, text: &str) {
        let Some((boot, text)) = text.split_once(' ') else { return };
        let (boot, is_retired) = match boot.strip_prefix(RETIRED) {
            Some(boot) => (boot, true),
            None => (boot, false),
        };
        if boot == self.boot {
            return;
        }
        if is_retired {
            self.peers.lock().remove(boot);
        } else {
            self.peers.lock().insert(boot.to_owned(), Instant::now());
        }
        for listener in self.listeners.get().into_iter().flatten() {
            if listener.channel == channel {
                (listener.heard)(boot, text);
            }
        }
    }
}
