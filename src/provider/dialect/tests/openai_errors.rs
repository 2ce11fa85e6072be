//! Errors of OpenAI and of compatible servers.

use super::*;

#[test]
fn errors_are_classified() {
    check_errors(
        Kind::Openai,
        &[
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                Fault::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Unsupported parameter: 'logprobs'","type":"invalid_request_error","param":"logprobs","code":"unsupported_parameter"}}"#,
                Fault::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"Your request was rejected.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}"#,
                Fault::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Filtered","type":null,"param":"prompt","code":"content_filter"}}"#,
                Fault::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","param":null,"code":"billing_hard_limit_reached"}}"#,
                Fault::QuotaSpent,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid type for 'messages'.","type":"invalid_request_error","param":"messages","code":"invalid_type"}}"#,
                Fault::BadRequest,
            ),
            // The limit was too small for a thinking model to answer.
            (
                400,
                r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens.","type":"invalid_request_error","param":null,"code":null}}"#,
                Fault::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"Input tokens exceed the configured limit of 272000 tokens.","type":"invalid_request_error","param":"messages","code":null}}"#,
                Fault::TooLong,
            ),
            (
                422,
                r#"{"error":{"message":"Cannot process","type":"invalid_request_error"}}"#,
                Fault::BadRequest,
            ),
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
                Fault::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#,
                Fault::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"message":"Project `p` does not have access to model `some-model`","type":"invalid_request_error","param":null,"code":null}}"#,
                Fault::Misconfigured,
            ),
            (
                404,
                r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
                Fault::Misconfigured,
            ),
            (
                408,
                r#"{"error":{"message":"Timed out","type":"timeout"}}"#,
                Fault::ServerError,
            ),
            (
                409,
                r#"{"error":{"message":"Conflict","type":"conflict"}}"#,
                Fault::ServerError,
            ),
            (
                413,
                r#"{"error":{"message":"Too large","type":"invalid_request_error"}}"#,
                Fault::TooLong,
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","type":"insufficient_quota","param":null,"code":null}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"credit_balance_exhausted"}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"organization_spend_limit_exceeded"}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"project_spend_limit_exceeded"}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"x","code":"organization_usage_limit_exceeded"}}"#,
                Fault::QuotaSpent,
            ),
            (
                429,
                r#"{"error":{"message":"Rate limit reached for gpt-4o on tokens per min","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                Fault::RateLimited,
            ),
            (
                429,
                r#"{"error":{"message":"Too many tokens, slow down","type":"tokens","param":null,"code":"slow_down"}}"#,
                Fault::RateLimited,
            ),
            (
                429,
                r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                Fault::TooLong,
            ),
            (
                500,
                r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
                Fault::ServerError,
            ),
            (
                503,
                r#"{"error":{"message":"Slow down","type":"server_error","param":null,"code":"slow_down"}}"#,
                Fault::Overloaded,
            ),
            (
                503,
                r#"{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"server_is_overloaded"}}"#,
                Fault::Overloaded,
            ),
        ],
    );
}

#[test]
fn errors_of_compatible_servers_are_classified() {
    check_errors(
        Kind::Openai,
        &[
            // vLLM, new and old.
            (
                400,
                r#"{"error":{"message":"Bad","type":"BadRequestError","param":null,"code":400}}"#,
                Fault::BadRequest,
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5000","type":"BadRequestError","param":null,"code":400}}"#,
                Fault::TooLong,
            ),
            (
                400,
                r#"{"object":"error","message":"Please reduce the length of the messages","type":"BadRequestError","code":40303}"#,
                Fault::TooLong,
            ),
            (
                404,
                r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#,
                Fault::Misconfigured,
            ),
            // llama.cpp.
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}"#,
                Fault::TooLong,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}"#,
                Fault::TooLong,
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                Fault::Overloaded,
            ),
            // LM Studio.
            (
                404,
                r#"{"error":{"message":"No models loaded","type":"invalid_request_error","param":"model","code":null}}"#,
                Fault::Misconfigured,
            ),
            // OpenRouter.
            (
                402,
                r#"{"error":{"code":402,"message":"Insufficient credits"}}"#,
                Fault::QuotaSpent,
            ),
            (
                403,
                r#"{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"..","provider_name":"P"}}}"#,
                Fault::Policy,
            ),
            (
                408,
                r#"{"error":{"code":408,"message":"Timed out"}}"#,
                Fault::ServerError,
            ),
            (
                429,
                r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"x"}}}"#,
                Fault::RateLimited,
            ),
            (
                502,
                r#"{"error":{"code":502,"message":"Provider down"}}"#,
                Fault::ServerError,
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"No instances available"}}"#,
                Fault::Overloaded,
            ),
            // Mistral.
            (
                422,
                r#"{"object":"error","message":{"detail":[{"loc":["body","messages"],"msg":"field required"}]},"type":"invalid_request_error","param":null,"code":null}"#,
                Fault::BadRequest,
            ),
            (
                422,
                r#"{"detail":[{"type":"missing","loc":["body","model"],"msg":"Field required"}]}"#,
                Fault::BadRequest,
            ),
            // DeepSeek.
            (
                402,
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
                Fault::QuotaSpent,
            ),
            (
                400,
                r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
                Fault::Policy,
            ),
            // FastAPI wrappers.
            (400, r#"{"detail":"Bad request"}"#, Fault::BadRequest),
            (
                401,
                r#"{"detail":"Not authenticated"}"#,
                Fault::Unauthorized,
            ),
            (400, r#"{"message":"Bad request"}"#, Fault::BadRequest),
            (500, r#"{"message":"boom"}"#, Fault::ServerError),
            (500, r#"{"error":"boom"}"#, Fault::ServerError),
            // LiteLLM.
            (
                429,
                r#"{"error":{"message":"x","type":"throttling_error","param":"None","code":"429"}}"#,
                Fault::RateLimited,
            ),
            // Gemini's and xAI's compatible servers.
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
                Fault::Unauthorized,
            ),
            (
                400,
                r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***yz."}"#,
                Fault::Unauthorized,
            ),
            // Errors with a success status.
            (
                200,
                r#"{"error":{"message":"Rate limited","type":"rate_limit_error"}}"#,
                Fault::RateLimited,
            ),
            (
                200,
                r#"{"error":{"message":"x","code":"401"}}"#,
                Fault::Unauthorized,
            ),
            (
                200,
                r#"{"error":"The model is overloaded"}"#,
                Fault::Overloaded,
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
            classify(Kind::Openai, 500, &[], body).detail,
            message,
            "{body}"
        );
    }
}
