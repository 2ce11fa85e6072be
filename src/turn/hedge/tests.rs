//! Two providers in a race.
