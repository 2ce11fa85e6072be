//! Settings whose value is one of a few words.

use super::diagnostics::{join_with_or, quoted};
use std::fmt;
use std::str::FromStr;

pub trait ConfigEnum: Copy + PartialEq + 'static {
    /// The description with its article, such as `a dialect`.
    const KIND: &'static str;
    /// All values, in the order in which messages list them.
    const ALL: &'static [Self];
    /// The name in the configuration, in metrics and on the status page.
    fn as_str(self) -> &'static str;
}

/// Parses an exact name.
///
/// # Errors
/// Returns a message that lists the valid names.
pub(super) fn parse_config_enum<T: ConfigEnum>(text: &str) -> Result<T, String> {
    let mut all = T::ALL.iter().copied();
    all.find(|value| value.as_str() == text).ok_or_else(|| {
        let names: Vec<&str> = T::ALL.iter().map(|value| value.as_str()).collect();
        let names = join_with_or(&names);
        format!("{} is not {}; use {names}", quoted(text), T::KIND)
    })
}

macro_rules! config_enum {
    ($(#[$meta:meta])* $name:ident is $kind:literal { $($(#[$about:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl ConfigEnum for $name {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                parse_config_enum(text)
            }
        }
    };
}

config_enum! {
    Dialect is "a dialect" {
        /// OpenAI chat completions, also spoken by many compatible servers.
        OpenAi = "openai",
        Anthropic = "anthropic",
        Gemini = "gemini",
        Azure = "azure",
        Ollama = "ollama",
    }
}

config_enum! {
    /// The way a provider continues an answer that another provider started.
    Prefill is "a way to prefill" {
        /// Not supported. The provider is asked to repeat the end of the text and to continue.
        Off = "off",
        /// The provider continues a trailing assistant message.
        Assistant = "assistant",
        /// Like `assistant`, plus the two request fields that vLLM needs.
        Vllm = "vllm",
        /// Like `assistant`, with `"prefix": true` in the message.
        Prefix = "prefix",
    }
}

config_enum! {
    RoutingStrategy is "a strategy" {
        Priority = "priority",
        /// Randomly, in proportion to the weights.
        Weighted = "weighted",
        RoundRobin = "round_robin",
        /// The provider with the lowest time to first token.
        Fastest = "fastest",
        Cheapest = "cheapest",
    }
}

config_enum! {
    /// The reaction to a provider that fails after part of its answer was shown.
    MidStream is "a mid_stream mode" {
        /// The next provider starts the answer again.
        Restart = "restart",
        Continue = "continue",
    }
}

config_enum! {
    /// The health check of a provider that currently receives no calls.
    ProbeKind is "a probe" {
        /// Lists the models, which is free.
        Models = "models",
        /// Requests a completion of one token.
        Completion = "completion",
        Off = "off",
    }
}

config_enum! {
    CacheSharing is "a way to share" {
        /// Only the conversation that asked gets the answer.
        Never = "never",
        /// Shared after `cache.repeated_min` conversations have asked the same question.
        Repeated = "repeated",
        Always = "always",
    }
}

config_enum! {
    StoreBackend is "a store backend" {
        Sled = "sled",
        Redis = "redis",
    }
}

config_enum! {
    /// A fault that a drill or the demo injects into a provider's new calls and running answers.
    InjectedFault is "a fault" {
        /// Connections are refused, running answers break off.
        Down = "down",
        /// HTTP 429 with a `Retry-After` of 30 s, running answers break off.
        RateLimit = "rate_limit",
        /// HTTP 401, running answers break off.
        Unauthorized = "unauthorized",
        /// No response.
        Timeout = "timeout",
        /// Silence after ten tokens.
        Stall = "stall",
        /// A connection reset after ten tokens.
        Cut = "cut",
        /// Invalid JSON after ten tokens.
        Garbage = "garbage",
        /// One token per second.
        Slow = "slow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_value() {
        for strategy in RoutingStrategy::ALL {
            assert_eq!(strategy.as_str().parse(), Ok(*strategy));
        }
        for fault in InjectedFault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(*fault));
        }
    }

    #[test]
    fn unknown_name_lists_the_valid_ones() {
        assert_eq!(
            "opnai".parse::<Dialect>(),
            Err(
                "\"opnai\" is not a dialect; use openai, anthropic, gemini, azure or ollama"
                    .to_owned()
            )
        );
        assert!("OpenAI".parse::<Dialect>().is_err());
    }
}
