//! Every kind of problem, with its line, key and hint.

use super::assert_problem;

#[test]
fn each_problem_has_line_key_and_hint() {
    for (text, start, part) in [
        // Unknown keys.
        (
            "\n[server]\nlistn = 1",
            "3: server.listn: ",
            "did you mean listen?",
        ),
        ("[sever]", "1: sever: ", "did you mean server?"),
        (
            "banana = 1",
            "1: banana: ",
            "here may stand server, chat, routing",
        ),
        (
            "[health]\nbanana = 1",
            "2: health.banana: ",
            "interval, timeout, probe, recovery_probe or expire",
        ),
        (
            "[health]\n\"a b\" = 1",
            "2: health.\"a b\": ",
            "no such key",
        ),
        (
            "server.drain = \"1s\"\nserver.x = 1",
            "2: server.x: ",
            "no such key",
        ),
        // Types.
        (
            "[server]\nlisten = 8080",
            "2: server.listen: ",
            "an integer where an address such as \"127.0.0.1:8080\" is needed",
        ),
        (
            "[server]\n\nworkers = \"two\"",
            "3: server.workers: ",
            "a string where a whole number from 0 to 1024 is needed",
        ),
        (
            "server = 1",
            "1: server: ",
            "an integer where a table is needed",
        ),
        (
            "[cache]\nenabled = \"yes\"",
            "2: cache.enabled: ",
            "a string where true or false is needed",
        ),
        (
            "[timeouts]\nstall = 15",
            "2: timeouts.stall: ",
            "an integer where a duration in quotes, such as",
        ),
        (
            "[quality]\nkeywords = \"a\"",
            "2: quality.keywords: ",
            "a string where a list in [brackets] is needed",
        ),
        (
            "[quality]\nkeywords = [\n\"a\",\n2,\n]",
            "4: quality.keywords[1]: ",
            "an integer where text in quotes is needed",
        ),
        (
            "[server]\nadmin_token = 5",
            "2: server.admin_token: ",
            "a secret as text",
        ),
        (
            "[breaker]\nfailure_rate = true",
            "2: breaker.failure_rate: ",
            "a boolean where a number from 0 to 1 is needed",
        ),
        (
            "[providers]\nname = \"a\"",
            "1: providers: ",
            "write [[providers]], in double brackets",
        ),
        (
            "providers = [1]",
            "1: providers[0]: ",
            "an integer where a table is needed",
        ),
        // Durations.
        (
            "[server]\ndrain = \"30 seconds\"",
            "2: server.drain: ",
            "\"30 seconds\" is not a duration; write",
        ),
        (
            "[timeouts]\nturn = \"0s\"",
            "2: timeouts.turn: ",
            "longer than zero",
        ),
        (
            "[timeouts]\nfirst_token = []",
            "2: timeouts.first_token: ",
            "at least one value",
        ),
        (
            "[timeouts]\nfirst_token = [\"5s\", \"x\"]",
            "2: timeouts.first_token[1]: ",
            "is not a duration",
        ),
        (
            "[timeouts]\nfirst_token = \"x\"",
            "2: timeouts.first_token: ",
            "is not a duration",
        ),
        (
            "[breaker]\nopen_for = \"20s\"\nopen_max = \"10s\"",
            "3: breaker.open_max: ",
            "shorter than open_for",
        ),
        (
            "[retry]\nmax = \"1s\"\nbase = \"2s\"",
            "2: retry.max: ",
            "shorter than base",
        ),
        // Ranges.
        (
            "[breaker]\nfailure_rate = 1.5",
            "2: breaker.failure_rate: ",
            "1.5 is out of range; a number from 0 to 1 is needed",
        ),
        (
            "[breaker]\nslow_rate = nan",
            "2: breaker.slow_rate: ",
            "out of range",
        ),
        (
            "[breaker]\nslow_factor = 0.5",
            "2: breaker.slow_factor: ",
            "a number of 1 or more is needed",
        ),
        (
            "[breaker]\nstream_failure_rate = -1",
            "2: breaker.stream_failure_rate: ",
            "out of range",
        ),
        (
            "[breaker]\nprobes = 0",
            "2: breaker.probes: ",
            "0 is out of range; a whole number from 1",
        ),
        (
            "[routing]\nmax_attempts = 0",
            "2: routing.max_attempts: ",
            "a whole number from 1 to 100 is needed",
        ),
        (
            "[retry]\nbudget = -0.1",
            "2: retry.budget: ",
            "out of range",
        ),
        (
            "[limits]\nturns = -5",
            "2: limits.turns: ",
            "-5 is out of range",
        ),
        (
            "[limits]\nconnections = 99999999999999999999",
            "2: limits.connections: ",
            "out of range",
        ),
        (
            "[limits]\nframe_bytes = 10",
            "2: limits.frame_bytes: ",
            "from 1024",
        ),
        // Words.
        (
            "[routing]\nstrategy = \"random\"",
            "2: routing.strategy: ",
            "use priority, weighted, round_robin, fastest or cheapest",
        ),
        (
            "[routing]\nmid_stream = 1",
            "2: routing.mid_stream: ",
            "an integer where a mid_stream mode is needed",
        ),
        (
            "[store]\nbackend = \"mysql\"",
            "2: store.backend: ",
            "\"mysql\" is not a store backend; use sled or redis",
        ),
        // Addresses.
        (
            "[server]\nlisten = \"8080\"",
            "2: server.listen: ",
            "\"127.0.0.1:8080\"",
        ),
        (
            "[server]\npublic_url = \"chat.example.com\"",
            "2: server.public_url: ",
            "https://www.example.com",
        ),
        (
            "[server]\nallowed_origins = [\"https://a.example\", \"*\"]",
            "2: server.allowed_origins[1]: ",
            "no wildcards",
        ),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "2: server.trusted_proxies[0]: ",
            "\"10.0.0.0/8\"",
        ),
        (
            "[telemetry]\notlp_endpoint = \"collector:4317\"",
            "2: telemetry.otlp_endpoint: ",
            "not a URL",
        ),
        (
            "[store]\nredis_url = \"localhost\"",
            "2: store.redis_url: ",
            "redis://HOST:6379",
        ),
        (
            "[alerts]\nwebhook = \"http://example.com/canary\"",
            "2: alerts.webhook: ",
            "https",
        ),
        (
            "[alerts]\nwebhook_secret = \"whsec_canary!\"",
            "2: alerts.webhook_secret: ",
            "base64",
        ),
        (
            "[alerts]\nwebhook = \"example.com/canary\"",
            "2: alerts.webhook: ",
            "not a URL",
        ),
        // Secrets.
        (
            "[server]\nadmin_token = \"env:NOPE\"",
            "2: server.admin_token: ",
            "variable NOPE is not set",
        ),
        (
            "[server]\napi_keys = [\"a\",\n\"env:NOPE\"]",
            "3: server.api_keys[1]: ",
            "variable NOPE is not set",
        ),
        (
            "[server]\napi_keys = [\"\"]",
            "2: server.api_keys[0]: ",
            "leave it out",
        ),
        (
            "[widget]\nidentity_secret = \"file:/no/such\"",
            "2: widget.identity_secret: ",
            "/no/such cannot be read",
        ),
        (
            "[widget]\nidentity_secret = \"canary\\n\"",
            "2: widget.identity_secret: ",
            "line break",
        ),
        // Files and hours.
        (
            "[degradation]\nreplies = \"/no/such\"",
            "2: degradation.replies: ",
            "is not a file that can be read",
        ),
        (
            "[degradation]\nknowledge = \"/no/such\"",
            "2: degradation.knowledge: ",
            "is not a folder that can be read",
        ),
        (
            "[degradation]\nfallback = \" \"",
            "2: degradation.fallback: ",
            "the answer when there is no other",
        ),
        (
            "[cache]\nwarm_hours = \"2-5\"",
            "2: cache.warm_hours: ",
            "\"02:00-05:00\"",
        ),
        (
            "[cache]\nwarm_hours = \"02:00-24:00\"",
            "2: cache.warm_hours: ",
            "\"02:00-05:00\"",
        ),
    ] {
        assert_problem(text, start, part);
    }
}
