//! The keys whose value is one of a few words.

use super::problem::{either, quoted};
use std::fmt;
use std::str::FromStr;

/// A setting that is one of a few named values.
pub trait Choice: Copy + PartialEq + 'static {
    /// What one is, with its article: `a dialect`.
    const KIND: &'static str;
    /// All of them, in the order they are listed to the operator.
    const ALL: &'static [Self];
    /// The name it has in the configuration, in metrics and on the status page.
    fn name(self) -> &'static str;
}

/// Finds a choice by its exact name.
///
/// # Errors
/// Lists the names there are.
pub(super) fn parse_choice<T: Choice>(text: &str) -> Result<T, String> {
    T::ALL
        .iter()
        .copied()
        .find(|choice| choice.name() == text)
        .ok_or_else(|| {
            let names: Vec<&str> = T::ALL.iter().map(|choice| choice.name()).collect();
            format!(
                "{} is not {}; use {}",
                quoted(text),
                T::KIND,
                either(&names)
            )
        })
}

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident is $kind:literal { $($(#[$about:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl Choice for $name {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                parse_choice(text)
            }
        }
    };
}

choice! {
    /// The protocol a provider speaks.
    Dialect is "a dialect" {
        /// OpenAI chat completions, and the many servers compatible with them.
        OpenAi = "openai",
        /// Anthropic messages.
        Anthropic = "anthropic",
        /// Google Gemini `streamGenerateContent`.
        Gemini = "gemini",
        /// Azure OpenAI deployments.
        Azure = "azure",
        /// Ollama's own chat API.
        Ollama = "ollama",
    }
}

choice! {
    /// How a provider is made to continue an answer that another one began.
    Prefill is "a way to prefill" {
        /// It cannot; it is asked to repeat the end and go on.
        Off = "off",
        /// A trailing assistant message is continued.
        Assistant = "assistant",
        /// As `assistant`, with vLLM's two request fields beside it.
        Vllm = "vllm",
        /// As `assistant`, with `"prefix": true` in the message.
        Prefix = "prefix",
    }
}

choice! {
    /// The order in which providers are tried.
    Strategy is "a strategy" {
        /// As the configuration lists them.
        Priority = "priority",
        /// By chance, in proportion to their weights.
        Weighted = "weighted",
        /// One after the other.
        RoundRobin = "round_robin",
        /// The one with the quickest first tokens.
        Fastest = "fastest",
        /// The one with the lowest price.
        Cheapest = "cheapest",
    }
}

choice! {
    /// What follows when a provider fails after part of its answer was shown.
    MidStream is "a mid_stream mode" {
        /// The next provider answers from the beginning.
        Restart = "restart",
        /// The next provider goes on where the text stopped.
        Continue = "continue",
    }
}

choice! {
    /// How a provider's health is looked into while it is not in use.
    ProbeKind is "a probe" {
        /// A free listing of its models.
        Models = "models",
        /// A completion of one token.
        Completion = "completion",
        /// Not at all.
        Off = "off",
    }
}

choice! {
    /// Who may be given another visitor's saved answer.
    Share is "a way to share" {
        /// Nobody.
        Never = "never",
        /// Anybody, once enough conversations asked alike.
        Repeated = "repeated",
        /// Anybody at once.
        Always = "always",
    }
}

choice! {
    /// Where conversations are kept.
    StoreBackend is "a store backend" {
        /// Embedded, for a single instance.
        Sled = "sled",
        /// Shared by several instances.
        Redis = "redis",
    }
}

choice! {
    /// What a drill, or the demo's panel, does to a provider: to its new calls, and to answers under way.
    Fault is "a fault" {
        /// Connections are refused; running answers are cut.
        Down = "down",
        /// 429 with a Retry-After of 30 s; running answers are cut.
        RateLimit = "rate_limit",
        /// 401; running answers are cut.
        Unauthorized = "unauthorized",
        /// Silence.
        Timeout = "timeout",
        /// Silence after ten tokens.
        Stall = "stall",
        /// A reset after ten tokens.
        Cut = "cut",
        /// Broken JSON after ten tokens.
        Garbage = "garbage",
        /// One token a second.
        Slow = "slow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(*strategy));
        }
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(*fault));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_choices() {
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
