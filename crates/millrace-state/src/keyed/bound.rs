//! Handles that may travel between threads although what they refer to may not.
//!
//! A user's function struct is cloned on the jobmanager's side of a job's `main` and used on its task's thread, so the
//! handles in it must be `Send`; state lives on its task's thread, behind an `Rc`. A [`Bound`] is therefore only a
//! number: what it refers to is kept in a thread-local list of the thread that made it. Any other thread finds nothing
//! there. (`fragile::Fragile` does the same with unsafe code, asks for the current thread's id on each access, which
//! costs two atomic operations, and panics when it is dropped on another thread.)

use std::{
    any::Any,
    cell::RefCell,
    marker::PhantomData,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

thread_local! {
    static PLACES: RefCell<Places> = const { RefCell::new(Places { used: Vec::new(), free: Vec::new() }) };
}

/// Every binding of the process has its own number, so that a place that is used again is not mistaken.
static NEXT: AtomicU64 = AtomicU64::new(1);

struct Places {
    used: Vec<(u64, Option<Rc<dyn Any>>)>,
    free: Vec<u32>,
}

/// Refers to a `T` of the thread that bound it.
pub(super) struct Bound<T> {
    place: u32,
    number: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Bound<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Bound<T> {}

/// Keeps a binding alive; on the thread that made it.
pub(super) struct Binding {
    place: u32,
    number: u64,
    /// Not `Send`.
    here: PhantomData<Rc<()>>,
}

impl Binding {
    pub(super) fn new(target: Rc<dyn Any>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = PLACES.with_borrow_mut(|places| match places.free.pop() {
            Some(place) => {
                places.used[place as usize] = (number, Some(target));
                place
            }
            None => {
                places.used.push((number, Some(target)));
                (places.used.len() - 1) as u32
            }
        });
        Self { place, number, here: PhantomData }
    }

    /// A reference to what was bound, which is a `T`.
    pub(super) fn bound<T>(&self) -> Bound<T> {
        Bound { place: self.place, number: self.number, of: PhantomData }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // While its thread ends the list may be gone already, and what was in it with it.
        let target = PLACES.try_with(|places| {
            let mut places = places.borrow_mut();
            places.free.push(self.place);
            places.used[self.place as usize].1.take()
        });
        // Dropped outside the borrow: a state's own drop may come back here.
        drop(target);
    }
}

impl<T: 'static> Bound<T> {
    /// What it refers to; `None` on any other thread, and once it is gone.
    #[inline]
    pub(super) fn get(self) -> Option<Rc<T>> {
        let target = PLACES.with_borrow(|places| match places.used.get(self.place as usize) {
            Some((number, target)) if *number == self.number => target.clone(),
            _ => None,
        })?;
        target.downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_found_on_its_thread_while_it_lives() {
        let binding = Binding::new(Rc::new(7i32));
        let bound = binding.bound::<i32>();
        assert_eq!(bound.get().as_deref(), Some(&7));
        let elsewhere = std::thread::spawn(move || {
            let other = Binding::new(Rc::new(8i32));
            (bound.get().as_deref().copied(), other.bound::<i32>().get().as_deref().copied())
        });
        assert_eq!(elsewhere.join().unwrap(), (None, Some(8)));
        drop(binding);
        assert!(bound.get().is_none());
        let next = Binding::new(Rc::new(9i32));
        assert_eq!(next.bound::<i32>().get().as_deref(), Some(&9));
        assert!(bound.get().is_none(), "the place is used again, by another binding");
    }
}
