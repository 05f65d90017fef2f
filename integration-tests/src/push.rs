//! Push notifications with everything around them: [`services`] runs archive, gateway and push servers as processes that
//! can be killed and started again, beside a stand-in for gorush; [`person`] makes and reads the messages of a client byte by byte,
//! without the policy of `poste-client`, over a real connection to the gateway.

pub mod person;
pub mod services;
