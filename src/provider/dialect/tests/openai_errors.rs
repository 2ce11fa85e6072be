//! Errors of OpenAI and of compatible servers.

use super::*;

#[test]
fn errors_are_classified() {
    check_errors(
        DialectKind::OpenAi,
        &[
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                FaultKind::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Unsupported parameter: 'logprobs'","type":"invalid_request_error","param":"logprobs","code":"unsupported_parameter"}}"#,
                FaultKind::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"Your request was rejected.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}"#,
                FaultKind::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Filtered","type":null,"param":"prompt","code":"content_filter"}}"#,
                FaultKind::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","param":null,"code":"billing_hard_limit_reached"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid type for 'messages'.","type":"invalid_request_error","param":"messages","code":"invalid_type"}}"#,
                FaultKind::BadRequest,
            ),
            // The limit was too small for a thinking model to answer.
            (
                400,
                r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens.","type":"invalid_request_error","param":null,"code":null}}"#,
                FaultKind::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"Input tokens exceed the configured limit of 272000 tokens.","type":"invalid_request_error","param":"messages","code":null}}"#,
                FaultKind::TooLong,
            ),
            (
                422,
                r#"{"error":{"message":"Cannot process","type":"invalid_request_error"}}"#,
                FaultKind::BadRequest,
            ),
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
                FaultKind::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#,
                FaultKind::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"message":"Project `p` does not have access to model `some-model`","type":"invalid_request_error","param":null,"code":null}}"#,
                FaultKind::Misconfigured,
            ),
            (
                404,
                r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
                FaultKind::Misconfigured,
            ),
            (
                408,
                r#"{"error":{"message":"Timed out","type":"timeout"}}"#,
                FaultKind::ServerError,
            ),
            (
                409,
                r#"{"error":{"message":"Conflict","type":"conflict"}}"#,
                FaultKind::ServerError,
            ),
            (
                413,
                r#"{"error":{"message":"Too large","type":"invalid_request_error"}}"#,
                FaultKind::TooLong,
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","type":"insufficient_quota","param":null,"code":null}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"credit_balance_exhausted"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"organization_spend_limit_exceeded"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"project_spend_limit_exceeded"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"organization_usage_limit_exceeded"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"Rate limit reached for gpt-4o on tokens per min","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                FaultKind::RateLimited,
            ),
            (
                429,
                r#"{"error":{"message":"Too many tokens, slow down","type":"tokens","param":null,"code":"slow_down"}}"#,
                FaultKind::RateLimited,
            ),
            (
                429,
                r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                FaultKind::TooLong,
            ),
            (
                500,
                r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
                FaultKind::ServerError,
            ),
            (
                503,
                r#"{"error":{"message":"Slow down","type":"server_error","param":null,"code":"slow_down"}}"#,
                FaultKind::Overloaded,
            ),
            (
                503,
                r#"{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"server_is_overloaded"}}"#,
                FaultKind::Overloaded,
            ),
        ],
    );
}

#[test]
fn errors_of_compatible_servers_are_classified() {
    check_errors(
        DialectKind::OpenAi,
        &[
            // vLLM, new and old.
            (
                400,
                r#"{"error":{"message":"Bad","type":"BadRequestError","param":null,"code":400}}"#,
                FaultKind::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5000","type":"BadRequestError","param":null,"code":400}}"#,
                FaultKind::TooLong,
            ),
            (
                400,
                r#"{"object":"error","message":"Please reduce the length of the messages","type":"BadRequestError","code":40303}"#,
                FaultKind::TooLong,
            ),
            (
                404,
                r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#,
                FaultKind::Misconfigured,
            ),
            // llama.cpp.
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}"#,
                FaultKind::TooLong,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}"#,
                FaultKind::TooLong,
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                FaultKind::Overloaded,
            ),
            // LM Studio.
            (
                404,
                r#"{"error":{"message":"No models loaded","type":"invalid_request_error","param":"model","code":null}}"#,
                FaultKind::Misconfigured,
            ),
            // OpenRouter.
            (
                402,
                r#"{"error":{"code":402,"message":"Insufficient credits"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                403,
                r#"{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"..","provider_name":"P"}}}"#,
                FaultKind::Policy,
            ),
            (
                408,
                r#"{"error":{"code":408,"message":"Timed out"}}"#,
                FaultKind::ServerError,
            ),
            (
                429,
                r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"x"}}}"#,
                FaultKind::RateLimited,
            ),
            (
                502,
                r#"{"error":{"code":502,"message":"Provider down"}}"#,
                FaultKind::ServerError,
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"No instances available"}}"#,
                FaultKind::Overloaded,
            ),
            // Mistral.
            (
                422,
                r#"{"object":"error","message":{"detail":[{"loc":["body","messages"],"msg":"field required"}]},"type":"invalid_request_error","param":null,"code":null}"#,
                FaultKind::BadRequest,
            ),
            (
                422,
                r#"{"detail":[{"type":"missing","loc":["body","model"],"msg":"Field required"}]}"#,
                FaultKind::BadRequest,
            ),
            // DeepSeek.
            (
                402,
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
                FaultKind::QuotaSpent,
            ),
            (
                400,
                r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
                FaultKind::Policy,
            ),
            // FastAPI wrappers.
            (400, r#"{"detail":"Bad request"}"#, FaultKind::BadRequest),
            (
                401,
                r#"{"detail":"Not authenticated"}"#,
                FaultKind::Unauthorized,
            ),
            (400, r#"{"message":"Bad request"}"#, FaultKind::BadRequest),
            (500, r#"{"message":"boom"}"#, FaultKind::ServerError),
            (500, r#"{"error":"boom"}"#, FaultKind::ServerError),
            // LiteLLM.
            (
                429,
                r#"{"error":{"message":"x","type":"throttling_error","param":"None","code":"429"}}"#,
                FaultKind::RateLimited,
            ),
            // Gemini's and xAI's compatible servers.
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
                FaultKind::Unauthorized,
            ),
            (
                400,
                r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***yz."}"#,
                FaultKind::Unauthorized,
            ),
            // Errors with a success status.
            (
                200,
                r#"{"error":{"message":"Rate limited","type":"rate_limit_error"}}"#,
                FaultKind::RateLimited,
            ),
            (
                200,
                r#"{"error":{"message":"x","code":"401"}}"#,
                FaultKind::Unauthorized,
            ),
            (
                200,
                r#"{"error":"The model is overloaded"}"#,
                FaultKind::Overloaded,
            ),
        ],
    );
}

#[test]
fn error_message_is_searched_in_order() {
    for (body, message) in [
        (
            r#"{"error":{"message":"inner"},"message":"outer"}"#,
            "inner",
        ),
        (r#"{"error":"text","message":"outer"}"#, "text"),
        (r#"{"object":"error","message":"flat","code":1}"#, "flat"),
        (r#"{"detail":"why"}"#, "why"),
        (
            r#"{"detail":[{"loc":["body","n"],"msg":"too big"}]}"#,
            r#"["body","n"] too big"#,
        ),
        (r#"{"error":{"code":"only_a_code"}}"#, "only_a_code"),
        ("plain\ttext", "plain text"),
        ("", ""),
    ] {
        assert_eq!(
            classify(DialectKind::OpenAi, 500, &[], body).detail,
            message,
            "{body}"
        );
    }
}
