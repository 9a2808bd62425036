//! Carries out orders.

use crate::call::call;
use crate::client::{Dialer, Session};
use crate::messages::{frame, parse, statement};
use load::{Answer, LogIns, Order, Ran, Target, Work, percentile};
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A log-in that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Statements that are parsed before the server is waited for.
const PARSED_AT_ONCE: usize = 50;

/// Sessions that are there, each for one statement at a time.
type Sessions = Arc<Mutex<VecDeque<Session>>>;

/// Until standard input ends.
pub(crate) fn serve(runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let sessions = Sessions::default();
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        let answer = runtime.block_on(carry_out(order, &sessions));
        let answer = answer.unwrap_or_else(|error| Answer::Failed { why: error.to_string() });
        println!("{}", serde_json::to_string(&answer)?);
        io::stdout().flush()?;
    }
    Ok(())
}

async fn carry_out(order: Order, sessions: &Sessions) -> Result<Answer, Box<dyn Error>> {
    match order {
        Order::LogIn { target, count, at_once, keep } => {
            let (mut there, answer) = log_in(&target, count, at_once, keep).await?;
            lock(sessions).append(&mut there);
            Ok(Answer::LoggedIn(answer))
        }
        Order::Call { address, ca, path, count } => call(address, &ca, &path, count).await,
        Order::Prepare { from, to } => {
            let mut session = take(sessions)?;
            for first in (from..to).step_by(PARSED_AT_ONCE) {
                let mut messages: Vec<u8> = (first..to).take(PARSED_AT_ONCE).flat_map(parse).collect();
                messages.extend(frame(b'S', &[]));
                session.ask(&messages).await?;
            }
            lock(sessions).push_front(session);
            Ok(Answer::Done)
        }
        Order::Run { in_flight, seconds, work } => Ok(Answer::Ran(run(sessions, in_flight, seconds, work).await?)),
        Order::End => {
            let all = std::mem::take(&mut *lock(sessions));
            for session in all {
                session.end().await;
            }
            Ok(Answer::Done)
        }
    }
}

async fn log_in(
    target: &Target,
    count: usize,
    at_once: usize,
    keep: bool,
) -> Result<(VecDeque<Session>, LogIns), Box<dyn Error>> {
    let (dialer, places) = (Arc::new(Dialer::new(target)?), Arc::new(Semaphore::new(at_once)));
    let callers: Arc<[(String, String)]> = target.callers.clone().into();
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    for number in 0..count {
        let (dialer, places, callers) = (Arc::clone(&dialer), Arc::clone(&places), Arc::clone(&callers));
        under_way.spawn(async move {
            let _place = places.acquire().await;
            let (user, password) = callers.get(number % callers.len().max(1)).ok_or_else(|| missing("callers"))?;
            let began = Instant::now();
            let session = timeout(PATIENCE, dialer.log_in(user, password)).await;
            let session = session.unwrap_or_else(|_| Err(io::Error::other("no answer")))?;
            let took = began.elapsed();
            if keep {
                return Ok((Some(session), took));
            }
            session.end().await;
            Ok::<_, io::Error>((None, took))
        });
    }
    let (mut there, mut took, mut failure) = (VecDeque::new(), Vec::new(), None);
    while let Some(ended) = under_way.join_next().await {
        match ended? {
            Ok((session, time)) => {
                there.extend(session);
                took.push(time.as_secs_f64() * 1e3);
            }
            Err(error) => failure = Some(error.to_string()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (served, p50_ms, p99_ms) = (took.len(), percentile(&mut took, 0.5), percentile(&mut took, 0.99));
    Ok((there, LogIns { served, failed: count - served, failure, seconds, p50_ms, p99_ms }))
}

async fn run(sessions: &Sessions, in_flight: usize, seconds: f64, work: Work) -> Result<Ran, Box<dyn Error>> {
    // What is always the same is made once.
    let same: Arc<[u8]> = statement(work, 0).into();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(seconds);
    let mut hands = JoinSet::new();
    let places = in_flight.min(lock(sessions).len());
    for hand in 0..places {
        let (sessions, same) = (Arc::clone(sessions), Arc::clone(&same));
        hands.spawn(async move {
            let mut took = Vec::new();
            for number in (hand..).step_by(places) {
                let mut session = take(&sessions)?;
                let other = matches!(work, Work::Execute { .. }).then(|| statement(work, number));
                let began = Instant::now();
                session.ask(other.as_deref().unwrap_or(&same)).await?;
                took.push(began.elapsed().as_secs_f64() * 1e6);
                lock(&sessions).push_back(session);
                if Instant::now() >= end {
                    break;
                }
            }
            Ok::<_, io::Error>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(ended) = hands.join_next().await {
        took.append(&mut ended??);
    }
    let seconds = began.elapsed().as_secs_f64();
    if took.is_empty() {
        return Err(missing("sessions").into());
    }
    Ok(Ran { statements: took.len(), seconds, p50_us: percentile(&mut took, 0.5), p99_us: percentile(&mut took, 0.99) })
}

fn take(sessions: &Sessions) -> io::Result<Session> {
    lock(sessions).pop_front().ok_or_else(|| missing("sessions"))
}

fn missing(what: &str) -> io::Error {
    io::Error::other(format!("there are no {what}"))
}

fn lock(sessions: &Sessions) -> std::sync::MutexGuard<'_, VecDeque<Session>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}
