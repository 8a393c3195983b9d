//! The Dataverse Web API: sign-in, metadata, messages, budget and load.
