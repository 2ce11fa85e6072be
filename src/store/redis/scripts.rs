//! Lua scripts. Redis runs each atomically, so it changes all of a record's keys or none.

use std::sync::LazyLock;

use ::redis::Script;

/// Writes a turn unless it changed since it was read.
///
/// Returns 1 if written, 0 if it changed, 2 if its conversation was deleted.
///
/// Keys: conversation, turn index, pending follow-ups, deleted marker. Arguments: turn, its bytes
/// as read (empty if missing), new bytes, message, pending (1 or 0), member of the pending set,
/// retention in seconds.
pub(super) static PUT_TURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local gone = redis.call('GET', KEYS[4])
        if gone and ARGV[1] <= gone then
            redis.call('ZREM', KEYS[3], ARGV[6])
            return 2
        end
        local field = 't:' .. ARGV[1]
        if (redis.call('HGET', KEYS[1], field) or '') ~= ARGV[2] then return 0 end
        redis.call('HSET', KEYS[1], field, ARGV[3])
        redis.call('ZADD', KEYS[2], 0, ARGV[1])
        local message = 'm:' .. ARGV[4]
        local first = redis.call('HGET', KEYS[1], message)
        if not first or redis.call('HEXISTS', KEYS[1], 't:' .. first) == 0 then
            redis.call('HSET', KEYS[1], message, ARGV[1])
        end
        if ARGV[5] == '1' then redis.call('ZADD', KEYS[3], 0, ARGV[6]) else redis.call('ZREM', KEYS[3], ARGV[6]) end
        redis.call('EXPIRE', KEYS[1], ARGV[7])
        redis.call('EXPIRE', KEYS[2], ARGV[7])
        return 1",
    )
});

/// Writes a conversation's record unless it has one.
///
/// Keys: conversation, visitor index. Arguments: bytes, start time, conversation, has a visitor (1
/// or 0), retention in seconds.
pub(super) static CREATE_CONVERSATION: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('HSETNX', KEYS[1], 'record', ARGV[1])
        redis.call('EXPIRE', KEYS[1], ARGV[5])
        if ARGV[4] == '1' and redis.call('HGET', KEYS[1], 'record') == ARGV[1] then
            redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
            redis.call('EXPIRE', KEYS[2], ARGV[5])
        end
        return 1",
    )
});

/// Deletes a conversation and its cached answers, and leaves a deleted marker.
///
/// Keys: conversation, turn index, deleted marker, pending follow-ups, answers of the conversation,
/// answer index. Arguments: conversation, key prefix of answers, retention in seconds.
pub(super) static DELETE_CONVERSATION: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local turns = redis.call('ZRANGE', KEYS[2], 0, -1)
        for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
            if string.sub(name, -#ARGV[1]) == ARGV[1] then redis.call('ZREM', KEYS[4], name) end
        end
        if #turns > 0 then redis.call('SET', KEYS[3], turns[#turns], 'EX', ARGV[3]) end
        for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do
            if redis.call('HGET', ARGV[2] .. key, 'c') == ARGV[1] then
                redis.call('DEL', ARGV[2] .. key)
                redis.call('ZREM', KEYS[6], key)
            end
        end
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[5])
        return 1",
    )
});

/// Returns the last deleted turn (or an empty string), then the last turns, oldest first.
///
/// Keys: conversation, turn index, deleted marker. Arguments: upper bound as in `ZREVRANGEBYLEX`,
/// limit.
pub(super) static LAST_TURNS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local found = {redis.call('GET', KEYS[3]) or ''}
        local ids = redis.call('ZREVRANGEBYLEX', KEYS[2], ARGV[1], '-', 'LIMIT', 0, ARGV[2])
        for at = #ids, 1, -1 do
            local turn = redis.call('HGET', KEYS[1], 't:' .. ids[at])
            if turn then found[#found + 1] = turn end
        end
        return found",
    )
});

/// Returns the turn that a message started. Key: conversation. Argument: message.
pub(super) static TURN_BY_MESSAGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local turn = redis.call('HGET', KEYS[1], 'm:' .. ARGV[1])
        return turn and redis.call('HGET', KEYS[1], 't:' .. turn)",
    )
});

/// Writes a field of a hash unless it holds a record of another version (then returns 2).
///
/// Key: hash. Arguments: field, bytes, version byte, maximum number of fields (the lowest names are
/// removed).
pub(super) static PUT_FIELD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local old = redis.call('HGET', KEYS[1], ARGV[1])
        if old and string.sub(old, 1, 1) ~= ARGV[3] then return 2 end
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
        if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
            local names = redis.call('HKEYS', KEYS[1])
            table.sort(names)
            for at = 1, #names - tonumber(ARGV[4]) do redis.call('HDEL', KEYS[1], names[at]) end
        end
        return 1",
    )
});

/// Writes a value unless it changed since it was read (then returns 0).
///
/// Key: value. Arguments: its bytes as read (empty if missing), new bytes.
pub(super) static COMPARE_AND_SET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2])
        return 1",
    )
});

/// Writes a cached answer unless one of another version is there (then returns 2).
///
/// Keys: answer, answer index, answers of its conversation (unused if it has none). Arguments:
/// bytes, version byte, conversation (empty if none), answer key, save time, TTL in seconds, key
/// prefix of the answers of a conversation.
pub(super) static PUT_ANSWER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local old = redis.call('HMGET', KEYS[1], 'v', 'c')
        if old[1] and string.sub(old[1], 1, 1) ~= ARGV[2] then return 2 end
        if old[2] and old[2] ~= ARGV[3] then redis.call('SREM', ARGV[7] .. old[2], ARGV[4]) end
        redis.call('HSET', KEYS[1], 'v', ARGV[1], 'c', ARGV[3])
        redis.call('EXPIRE', KEYS[1], ARGV[6])
        redis.call('ZADD', KEYS[2], ARGV[5], ARGV[4])
        if ARGV[3] ~= '' then
            redis.call('SADD', KEYS[3], ARGV[4])
            redis.call('EXPIRE', KEYS[3], ARGV[6])
        end
        return 1",
    )
});

/// Removes a cached answer unless it is of another version (then returns 2).
///
/// Keys: answer, answer index. Arguments: version byte, answer key, key prefix of the answers of a
/// conversation.
pub(super) static REMOVE_ANSWER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local old = redis.call('HMGET', KEYS[1], 'v', 'c')
        if old[1] and string.sub(old[1], 1, 1) ~= ARGV[1] then return 2 end
        if old[2] then redis.call('SREM', ARGV[3] .. old[2], ARGV[2]) end
        redis.call('DEL', KEYS[1])
        redis.call('ZREM', KEYS[2], ARGV[2])
        return 1",
    )
});

/// Returns the keys of all cached answers, oldest first, and drops expired ones from the index.
///
/// Key: answer index. Arguments: key prefix of answers, index of the last answer to read.
pub(super) static ANSWER_KEYS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local found = {}
        for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2])) do
            if redis.call('EXISTS', ARGV[1] .. key) == 1 then found[#found + 1] = key
            else redis.call('ZREM', KEYS[1], key) end
        end
        return found",
    )
});

/// Claims a conversation for a turn.
///
/// Returns 0 if claimed, 1 and the turn if another instance's turn is running, or 2 and the turn if
/// the message has one already.
///
/// Keys: running turn of the conversation, running turns, frame stream, conversation. Arguments:
/// turn, instance, message, first frame, lease in ms, stream TTL in ms, member of the running set,
/// channel, message to publish.
pub(super) static CLAIM_TURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local run = redis.call('GET', KEYS[1])
        if run then
            local turn, instance = string.match(run, '^(%S+) (%S+)$')
            if instance and instance ~= ARGV[2] then return {1, turn} end
        end
        local message = 'm:' .. ARGV[3]
        local known = redis.call('HGET', KEYS[4], message)
        if known and known ~= ARGV[1] and redis.call('HEXISTS', KEYS[4], 't:' .. known) == 1 then
            return {2, known}
        end
        redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[5])
        local time = redis.call('TIME')
        redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[5], ARGV[7])
        redis.call('XADD', KEYS[3], '*', 'f', ARGV[4])
        redis.call('PEXPIRE', KEYS[3], ARGV[6])
        redis.call('PUBLISH', ARGV[8], ARGV[9])
        return {0, ''}",
    )
});

/// Appends frames to the streams of running turns and renews their leases.
///
/// Keys: running turns, then per turn: running turn of its conversation, frame stream. Arguments:
/// instance, lease in ms, stream TTL in ms, maximum number of batches, then per turn: turn, member
/// of the running set, frames (empty to only renew the lease), last (1 or 0).
pub(super) static APPEND_FRAMES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
        for at = 0, (#KEYS - 3) / 2 do
            local run, frames = KEYS[2 + 2 * at], KEYS[3 + 2 * at]
            local turn, name, text, last = unpack(ARGV, 5 + 4 * at, 8 + 4 * at)
            if text ~= '' then
                redis.call('XADD', frames, 'MAXLEN', '~', ARGV[4], '*', 'f', text)
                redis.call('PEXPIRE', frames, ARGV[3])
            end
            local mine, held = turn .. ' ' .. ARGV[1], redis.call('GET', run)
            if last == '1' then
                if held and string.sub(held, 1, #turn) == turn then redis.call('DEL', run) end
                redis.call('ZREM', KEYS[1], name)
            elseif not held or held == mine then
                redis.call('SET', run, mine, 'PX', ARGV[2])
                redis.call('ZADD', KEYS[1], until_ms, name)
            end
        end
        return 1",
    )
});

/// Returns turns whose lease has expired and leases them to the caller.
///
/// Key: running turns. Arguments: lease in ms, limit.
pub(super) static CLAIM_EXPIRED_TURNS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
        for _, name in ipairs(names) do redis.call('ZADD', KEYS[1], now + ARGV[1], name) end
        return names",
    )
});

/// Claims the follow-up of a turn. Returns 0 if another instance with a heartbeat holds the claim.
///
/// Key: claim. Arguments: instance, duration in ms, key prefix of heartbeats.
pub(super) static CLAIM_FOLLOWUP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('GET', KEYS[1])
        if held and held ~= ARGV[1] and redis.call('EXISTS', ARGV[3] .. held) == 1 then return 0 end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return 1",
    )
});
