//! Turns: how a change that is a transaction of its own comes to its end though others change the same rows.
//!
//! A change is first tried without regard to others. Where it loses, it takes its place in one queue, with the keys that it
//! wrote as its *claim*, and is tried again once nobody before it claims one of them. While it has its turn, commits that touch its
//! claim wait: a change that is tried again by itself takes its place behind, any other waits for the turn to end. So whoever has
//! a turn meets only those commits that were past this door before, and those who come to it are served in order. Claims that have
//! no key in common have their turns side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::conflict::KeySet;
use crate::engine::error::{Error, Result};
use crate::engine::id::TableId;

/// Claims of more keys than this are on the whole table: they would be compared too slowly.
const MOST_KEYS: usize = 4096;
/// How often a waiting change looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long a commit waits for the turn of another at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a change wrote, or is expected to write.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    tables: BTreeMap<TableId, Claim>,
    /// Names of tables, views and schemas.
    names: bool,
}

/// What is claimed of a table.
#[derive(Debug, Clone)]
enum Claim {
    Keys(Vec<KeySet>),
    Whole,
}

impl Claims {
    /// Claims keys of a table. Without keys, or with many, it is the whole table.
    pub(super) fn add_keys(&mut self, table: TableId, keys: &[KeySet]) {
        let mut count = 0;
        for set in keys {
            count += match set {
                KeySet::Keys(keys) => keys.len(),
                // Its keys are in a file.
                KeySet::Segment(_) => MOST_KEYS + 1,
            };
        }
        if count == 0 || count > MOST_KEYS {
            return self.add_table(table);
        }
        self.tables.insert(table, Claim::Keys(keys.to_vec()));
    }

    /// Claims a whole table.
    pub(super) fn add_table(&mut self, table: TableId) {
        self.tables.insert(table, Claim::Whole);
    }

    /// Claims all names.
    pub(super) fn add_names(&mut self) {
        self.names = true;
    }

    /// The same tables, wholly.
    pub(super) fn widened(mut self) -> Self {
        self.tables.values_mut().for_each(|claim| *claim = Claim::Whole);
        self
    }

    /// Whether both have something in common.
    fn meets(&self, other: &Self) -> Result<bool> {
        if self.names && other.names {
            return Ok(true);
        }
        for (table, mine) in &self.tables {
            let met = match (mine, other.tables.get(table)) {
                (_, None) => false,
                (Claim::Whole, Some(_)) | (_, Some(Claim::Whole)) => true,
                (Claim::Keys(mine), Some(Claim::Keys(theirs))) => intersect(mine, theirs)?,
            };
            if met {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn intersect(mine: &[KeySet], theirs: &[KeySet]) -> Result<bool> {
    for a in mine {
        for b in theirs {
            if a.intersects(b)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The queue of a database.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    /// Signalled when a turn ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// By their tickets: in order.
    waiting: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    claims: Arc<Claims>,
    /// Tickets before this one with claims that meet its own; where there is none, it has its turn.
    before: BTreeSet<u64>,
    called: Arc<Condvar>,
}

/// A place in the queue; dropped, it is given up.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.turns.queue.lock();
        queue.waiting.remove(&self.ticket);
        queue.pass(self.ticket);
        self.turns.ended.notify_all();
    }
}

impl Queue {
    /// Lets those go on for whom only `ticket` was in the way.
    fn pass(&mut self, ticket: u64) {
        for place in self.waiting.range_mut(ticket..).map(|(_, place)| place) {
            if place.before.remove(&ticket) && place.before.is_empty() {
                place.called.notify_one();
            }
        }
    }

    /// Tickets before `ticket` that claims have to wait for.
    fn before(&self, ticket: u64, claims: &Claims) -> Result<BTreeSet<u64>> {
        let mut before = BTreeSet::new();
        for (other, place) in self.waiting.range(..ticket) {
            if claims.meets(&place.claims)? {
                before.insert(*other);
            }
        }
        Ok(before)
    }
}

impl Turns {
    /// Takes a place in the queue. [`Turn::wait`] waits for the turn.
    pub(super) fn enter(&self, claims: Claims) -> Result<Turn<'_>> {
        let mut queue = self.queue.lock();
        let ticket = queue.next;
        queue.next += 1;
        let before = queue.before(ticket, &claims)?;
        let place = Place { claims: Arc::new(claims), before, called: Arc::default() };
        queue.waiting.insert(ticket, place);
        Ok(Turn { turns: self, ticket })
    }

    /// The ticket of a turn that a commit with these claims has to wait for; `own` is its own.
    pub(super) fn in_the_way(
        &self,
        claims: &Claims,
        own: Option<&Turn<'_>>,
    ) -> Result<Option<u64>> {
        let queue = self.queue.lock();
        // One who has a turn lets only those before him go first, or two would wait for each other.
        let end = own.map_or(u64::MAX, |turn| turn.ticket);
        let with_turn = queue.waiting.range(..end).filter(|(_, place)| place.before.is_empty());
        for (ticket, place) in with_turn {
            if claims.meets(&place.claims)? {
                return Ok(Some(*ticket));
            }
        }
        Ok(None)
    }

    /// Waits until a turn has ended, but no longer than anybody should.
    pub(super) fn wait_for_end(&self, ticket: u64) {
        let until = Instant::now() + PATIENCE;
        let mut queue = self.queue.lock();
        while queue.waiting.contains_key(&ticket) {
            if self.ended.wait_until(&mut queue, until).timed_out() {
                return;
            }
        }
    }

    /// Whether nobody waits or has a turn.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }
}

impl Turn<'_> {
    /// Waits for the turn. `wanted` is asked now and then; its error ends the waiting.
    pub(super) fn wait(&self, wanted: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut queue = self.turns.queue.lock();
        loop {
            let gone = || Error::internal("a place in the queue of changes is gone");
            let place = queue.waiting.get(&self.ticket).ok_or_else(gone)?;
            if place.before.is_empty() {
                return Ok(());
            }
            let called = Arc::clone(&place.called);
            called.wait_for(&mut queue, LOOK);
            parking_lot::MutexGuard::unlocked(&mut queue, wanted)?;
        }
    }

    /// Claims more, at the same place in the queue: the turn may have to be waited for again.
    pub(super) fn widen(&self, claims: Claims) -> Result<()> {
        let mut queue = self.turns.queue.lock();
        let before = queue.before(self.ticket, &claims)?;
        let claims = Arc::new(claims);
        let behind: Vec<u64> = queue
            .waiting
            .range(self.ticket + 1..)
            // Those that have their turn already go on.
            .filter(|(_, place)| !place.before.is_empty())
            .map(|(ticket, place)| Ok((*ticket, place.claims.meets(&claims)?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter_map(|(ticket, meets)| meets.then_some(ticket))
            .collect();
        for ticket in behind {
            if let Some(place) = queue.waiting.get_mut(&ticket) {
                place.before.insert(self.ticket);
            }
        }
        if let Some(place) = queue.waiting.get_mut(&self.ticket) {
            place.claims = claims;
            place.before = before;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::key::KeyColumn;

    fn claim(table: u64, keys: &[u64]) -> Claims {
        let mut claims = Claims::default();
        let keys = KeySet::Keys(Arc::new(KeyColumn::U64(keys.to_vec())));
        claims.add_keys(TableId(table), &[keys]);
        claims
    }

    fn has_turn(turn: &Turn<'_>) -> bool {
        turn.turns.queue.lock().waiting[&turn.ticket].before.is_empty()
    }

    #[test]
    fn turns_come_in_order_and_side_by_side_where_keys_differ() {
        let turns = Turns::default();
        let first = turns.enter(claim(1, &[1, 2])).unwrap();
        let second = turns.enter(claim(1, &[2, 3])).unwrap();
        let third = turns.enter(claim(1, &[3])).unwrap();
        let aside = turns.enter(claim(1, &[9])).unwrap();
        let elsewhere = turns.enter(claim(2, &[2])).unwrap();
        assert!(has_turn(&first) && has_turn(&aside) && has_turn(&elsewhere));
        assert!(!has_turn(&second) && !has_turn(&third));
        drop(first);
        assert!(has_turn(&second) && !has_turn(&third));
        drop(second);
        assert!(has_turn(&third));
    }

    #[test]
    fn who_gives_up_lets_others_pass() {
        let turns = Turns::default();
        let first = turns.enter(claim(1, &[1])).unwrap();
        let second = turns.enter(claim(1, &[1])).unwrap();
        let third = turns.enter(claim(1, &[1])).unwrap();
        let stopped = || Err(Error::conflict("not wanted any more"));
        assert!(second.wait(&stopped).is_err());
        drop(second);
        assert!(!has_turn(&third));
        drop(first);
        third.wait(&|| Ok(())).unwrap();
    }

    #[test]
    fn commits_wait_for_turns_that_claim_their_keys() {
        let turns = Turns::default();
        let holder = turns.enter(claim(1, &[5])).unwrap();
        let waiter = turns.enter(claim(1, &[5, 6])).unwrap();
        assert_eq!(turns.in_the_way(&claim(1, &[5]), None).unwrap(), Some(holder.ticket));
        assert_eq!(turns.in_the_way(&claim(1, &[5]), Some(&holder)).unwrap(), None);
        assert_eq!(turns.in_the_way(&claim(1, &[6]), None).unwrap(), None, "it only waits");
        let mut whole = Claims::default();
        whole.add_table(TableId(1));
        assert_eq!(turns.in_the_way(&whole, None).unwrap(), Some(holder.ticket));
        holder.widen(claim(1, &[5]).widened()).unwrap();
        assert!(has_turn(&holder));
        assert_eq!(turns.in_the_way(&claim(1, &[6]), None).unwrap(), Some(holder.ticket));
        drop((holder, waiter));
        assert!(turns.is_empty());
    }

    #[test]
    fn many_keys_claim_the_table() {
        let keys: Vec<u64> = (0..=MOST_KEYS as u64).collect();
        assert!(claim(1, &keys).meets(&claim(1, &[1 << 40])).unwrap());
        assert!(!claim(1, &keys[1..]).meets(&claim(1, &[1 << 40])).unwrap());
    }
}
