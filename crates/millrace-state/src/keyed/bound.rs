//! Handles that may travel between threads although what they refer to may not.
//!
//! A user's function struct is made where the job's `main` runs and used on its task's thread, so the handles in it must
//! be `Send`; state lives on its task's thread, behind an `Rc`.

use std::rc::Rc;

use fragile::Fragile;

/// Refers to a `T` of the thread that made it; any other thread finds nothing.
pub(super) struct Bound<T>(Option<Fragile<Rc<T>>>);

impl<T> Bound<T> {
    pub(super) fn new(target: Rc<T>) -> Self {
        Self(Some(Fragile::new(target)))
    }

    /// What it refers to.
    #[inline]
    pub(super) fn get(&self) -> Option<&T> {
        match self.0.as_ref()?.try_get() {
            Ok(target) => Some(target),
            Err(_) => None,
        }
    }
}

impl<T> Clone for Bound<T> {
    /// On another thread the clone refers to nothing.
    fn clone(&self) -> Self {
        let target = self.0.as_ref().and_then(|target| target.try_get().ok());
        Self(target.map(|target| Fragile::new(Rc::clone(target))))
    }
}

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        // What is another thread's can't be dropped here: dropping a `Fragile` would panic. The state is leaked, which
        // takes a user who moved a handle out of its function.
        if let Some(target) = self.0.take_if(|target| !target.is_valid()) {
            std::mem::forget(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_on_its_thread_only_and_can_be_dropped_on_any() {
        let bound = Bound::new(Rc::new(7));
        assert_eq!(bound.get(), Some(&7));
        assert_eq!(bound.clone().get(), Some(&7));
        let travelled = bound.clone();
        let elsewhere = std::thread::spawn(move || (travelled.get().copied(), travelled.clone().get().copied()));
        assert_eq!(elsewhere.join().unwrap(), (None, None));
    }
}
