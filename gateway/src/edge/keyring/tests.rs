use super::*;

/// A key as the database has it.
fn stored(token: &KeyToken) -> Arc<StoredKey> {
    Arc::new(StoredKey::lasting(token, Scopes::from_iter([Scope::TasksRead])))
}

fn token() -> KeyToken {
    KeyToken::random(KeyId::random())
}

#[test]
fn a_key_is_taken_for_granted_while_fresh_and_believed_for_a_minute_while_nobody_can_tell() {
    let (token, now) = (token(), Instant::now());
    let (secret, scopes) = (token.hash(), Scopes::from_iter([Scope::TasksRead]));
    let mut memory = Memory::default();
    assert_eq!(memory.recall(token.id, &secret, now), Recalled::Strange);
    memory.learn(&stored(&token), now);
    for (seconds, expected) in [
        (0.0, Recalled::Settled(Ok(scopes))),
        (2.9, Recalled::Settled(Ok(scopes))),
        (3.0, Recalled::Doubtful(Some(scopes))),
        (59.9, Recalled::Doubtful(Some(scopes))),
        (60.0, Recalled::Doubtful(None)),
    ] {
        let at = now + Duration::from_secs_f64(seconds);
        assert_eq!(memory.recall(token.id, &secret, at), expected, "{seconds}");
        assert_eq!(memory.allows(token.id, Scope::TasksRead, at), seconds < 60.0, "{seconds}");
    }
    // The database does not answer: it is asked once a second, and no request waits for it in between.
    memory.learn_nothing(token.id, now + Duration::from_secs(10));
    let just_after = now + Duration::from_secs_f64(10.5);
    assert_eq!(memory.recall(token.id, &secret, just_after), Recalled::Settled(Ok(scopes)));
    memory.learn_nothing(token.id, now + Duration::from_secs_f64(59.5));
    assert_eq!(memory.recall(token.id, &secret, now + Duration::from_secs(60)), Recalled::Doubtful(None));
}

#[test]
fn a_secret_that_does_not_fit_is_always_asked_for() {
    let (old, now) = (token(), Instant::now());
    let new = KeyToken::random(old.id);
    let mut memory = Memory::default();
    memory.learn(&stored(&old), now);
    assert_eq!(memory.recall(new.id, &new.hash(), now), Recalled::Strange);
    memory.learn(&stored(&new), now);
    assert!(matches!(memory.recall(new.id, &new.hash(), now), Recalled::Settled(Ok(_))));
    // An answer that was overtaken changes nothing.
    memory.learn(&stored(&old), now - Duration::from_millis(1));
    assert!(matches!(memory.recall(new.id, &new.hash(), now), Recalled::Settled(Ok(_))));
}

#[test]
fn ids_that_are_nobodys_are_remembered_within_bounds_and_drive_no_key_out() {
    let (known, now) = (token(), Instant::now());
    let mut memory = Memory::default();
    memory.learn(&stored(&known), now);
    let nobody = token();
    memory.learn_nobody(nobody.id, now);
    assert_eq!(memory.recall(nobody.id, &nobody.hash(), now), Recalled::Settled(Err(Refusal::Unknown)));
    assert_eq!(memory.recall(nobody.id, &nobody.hash(), now + FRESH), Recalled::Strange);
    for _ in 0..2 * UNKNOWN_MAX {
        memory.learn_nobody(KeyId::random(), now);
    }
    assert_eq!(memory.unknown.len(), UNKNOWN_MAX);
    assert!(matches!(memory.recall(known.id, &known.hash(), now), Recalled::Settled(Ok(_))));
    memory.learn_nobody(KeyId::random(), now + FRESH);
    assert_eq!(memory.unknown.len(), 1, "what is old makes room");
}

#[test]
fn so_many_keys_are_remembered_and_no_more() {
    let (now, last) = (Instant::now(), token());
    let mut memory = Memory::default();
    for _ in 0..KNOWN_MAX {
        memory.learn(&stored(&token()), now);
    }
    memory.learn(&stored(&last), now);
    assert!(memory.known.len() <= KNOWN_MAX && memory.known.contains_key(&last.id));
}

#[test]
fn a_key_that_is_used_is_noted_once_a_minute() {
    let (token, now) = (token(), Instant::now());
    let mut memory = Memory::default();
    memory.learn(&stored(&token), now);
    assert!(memory.take_used(now).is_empty(), "nobody has used it");
    for (seconds, noted) in [(0, true), (1, false), (59, false), (60, true), (61, false)] {
        memory.note_use(token.id);
        memory.learn(&stored(&token), now);
        assert_eq!(memory.take_used(now + Duration::from_secs(seconds)), vec![token.id; noted.into()], "{seconds}");
    }
}
