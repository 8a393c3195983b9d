//! A local Dataverse stand-in over HTTP, usable alone.
