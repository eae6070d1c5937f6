//! Hanging up on gateways that count on one Redis: never free, whichever of them is left.

use crate::{
    downstream::disconnect::{COUNTED, charges, cut_charges_what_came, one_at_a_time},
    ledger::farming::Farm,
    ledger::shared_ledger::start,
    support::{Mock, Redis, Reply},
};

#[tokio::test]
async fn cut_charges_what_came_wherever_it_is_asked() {
    for size in [1, 3] {
        let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
        let gateways = start(size, one_at_a_time(&mock, "cut").redis(&redis.url())).await;
        cut_charges_what_came(&gateways, &mock).await;
    }
}

#[tokio::test]
async fn drain_charges_the_providers_count_wherever_it_is_asked() {
    for size in [1, 3] {
        let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
        let gateways = start(size, one_at_a_time(&mock, "drain").redis(&redis.url())).await;
        for streams in [true, false] {
            assert_eq!(charges(&gateways, &mock, streams, true).await, [COUNTED; 5]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hang_ups_and_broken_bodies_win_nothing_anywhere() {
    for (size, on_disconnect) in [(1, "drain"), (3, "cut")] {
        let (farm, redis) = (Farm::new(on_disconnect).await, Redis::start().await);
        let gateways = start(size, farm.config.clone().redis(&redis.url())).await;
        farm.wins_nothing(gateways).await;
    }
}
