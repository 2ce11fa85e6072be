//! What Redis does as one: each script changes all of a record's keys, or none.

use std::sync::LazyLock;

use ::redis::Script;

/// Writes a turn in the place of what was read of it. Gives 1; 0 where it changed since, 2 where the conversation was forgotten since.
///
/// Keys: the conversation, its order, who waits, what is gone. Arguments: the turn, what was read (empty: nothing), the turn's bytes, its
/// message, whether it waits (1, 0), its name among those who wait, the retention in seconds.
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

/// Writes a conversation's record where there is none. Keys: the conversation, the visitor's. Arguments: the bytes, when it began, the
/// conversation, whether it is a visitor's (1, 0), the retention in seconds.
pub(super) static BEGIN: LazyLock<Script> = LazyLock::new(|| {
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

/// Removes a conversation, with what was saved of it, and remembers so. Keys: the conversation, its order, what is gone, who waits, the
/// answers from there, all answers. Arguments: the conversation, the beginning of an answer's key, the retention in seconds.
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| {
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

/// The last turns, oldest first, behind the last that is gone. Keys: the conversation, its order, what is gone. Arguments: the greatest
/// (as ZREVRANGEBYLEX has it), how many.
pub(super) static TURNS: LazyLock<Script> = LazyLock::new(|| {
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

/// The turn that a message opened. Keys: the conversation. Arguments: the message.
pub(super) static TURN_OF: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local turn = redis.call('HGET', KEYS[1], 'm:' .. ARGV[1])
        return turn and redis.call('HGET', KEYS[1], 't:' .. turn)",
    )
});

/// Writes a record in the place of one of this version or none. Keys: where; a hash. Arguments: the field, the bytes, the version's byte, how
/// many fields there may be (those of the least names go).
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

/// Writes a value in the place of what was read. Keys: where. Arguments: what was read (empty: nothing), the bytes.
pub(super) static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2])
        return 1",
    )
});

/// Saves an answer. Keys: the answer, all answers, those of its conversation, or nothing's. Arguments: the bytes, the version's byte, the
/// conversation (empty: none), the answer's name, when it was saved, how long it is kept in seconds, the beginning of an origin's key.
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

/// Removes a saved answer of this version. Keys: the answer, all answers. Arguments: the version's byte, the answer's name, the beginning of
/// an origin's key.
pub(super) static DROP_ANSWER: LazyLock<Script> = LazyLock::new(|| {
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

/// The names of all saved answers, those saved longest ago first; those whose time is over are taken out. Keys: all answers. Arguments: the
/// beginning of an answer's key, how many at most.
pub(super) static ANSWERS: LazyLock<Script> = LazyLock::new(|| {
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

/// Claims a conversation for a turn. Gives 0; 1 and the turn, where another instance's runs; 2 and the turn, where the message has one.
///
/// Keys: who runs there, all that run, the turn's frames, the conversation. Arguments: the turn, the instance, the message, the first frame,
/// the lease, how long frames stay, the turn's name among those that run, the channel, what is told there.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
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

/// Appends to the streams of running turns and renews their leases. Keys: all that run, then of each turn who runs there and its frames.
/// Arguments: the instance, the lease, how long frames stay, how many batches do, then of each turn its id, its name among those that run, its
/// frames (empty: none), whether they are the last (1, 0).
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
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

/// Turns whose lease is over, which nobody else is given for another one. Keys: all that run. Arguments: the lease, how many at most.
pub(super) static LAPSED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
        for _, name in ipairs(names) do redis.call('ZADD', KEYS[1], now + ARGV[1], name) end
        return names",
    )
});

/// Whether this instance is to ask for a late answer: unless another does that shows a sign of life. Keys: where that is said. Arguments: the
/// instance, for how long, the beginning of a sign's key.
pub(super) static CLAIM_LATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('GET', KEYS[1])
        if held and held ~= ARGV[1] and redis.call('EXISTS', ARGV[3] .. held) == 1 then return 0 end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return 1",
    )
});
