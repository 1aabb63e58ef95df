import type { Mistake } from './mistake.ts'

/** Mistakes of what the centre decides, and of what it tells. */
export const decisionMistakes: readonly Mistake[] = [
  {
    name: 'conflict records are dropped',
    seeds: 60,
    edits: [
      {
        file: 'server/sync/push/decide.ts',
        find: '      conflicts.push(...decided.conflicts)\n',
        replace: '',
      },
    ],
  },
  {
    name: 'the siblings of a rejected mutation are carried out',
    seeds: 100,
    edits: [
      {
        file: 'server/sync/push/decide.ts',
        find: '      return { culprit: n, signal: error }',
        replace: `      outcomes.push({ seq: transaction.seq, n, kind: 'rejected', reason: error.refusal.reason })`,
      },
    ],
  },
  {
    name: 'a clock that is ahead is believed',
    seeds: 100,
    edits: [
      {
        file: 'server/sync/push/transaction.ts',
        find: 'clock: Math.min(transaction.clock, nowMicros)',
        replace: 'clock: Math.max(transaction.clock, nowMicros - nowMicros)',
      },
    ],
  },
  {
    name: 'the earlier writer wins',
    seeds: 100,
    edits: [
      {
        file: 'sync/merge/clock.ts',
        find: 'compareWritten(mine, rival) > 0',
        replace: 'compareWritten(mine, rival) < 0',
      },
    ],
  },
  {
    name: 'a change that is visible in the snapshot of the base counts as concurrent when it is recent',
    seeds: 100,
    edits: [
      {
        file: 'sync/merge/snapshot.ts',
        find: '  return xid < snapshot.xmax && !snapshot.running.has(xid)',
        replace: '  return xid < snapshot.xmin',
      },
    ],
  },
  {
    name: 'a row that left the scope is not taken away',
    seeds: 100,
    edits: [
      {
        file: 'server/sync/pull-response.ts',
        find: 'if (entry.image === null || !entry.keysAfter.some(this.#holds)) {',
        replace: 'if (entry.image === null) {',
      },
    ],
  },
]

/** Mistakes with rows that change hands. */
export const givingMistakes: readonly Mistake[] = [
  {
    name: 'a row that is given away stays with its former owner',
    seeds: 100,
    edits: [
      {
        file: 'test/sim/centre/statements.ts',
        find: '      keysBefore: known?.keys ?? this.#scopeKeys(table, before),',
        replace: '      keysBefore: this.#scopeKeys(table, after),',
      },
    ],
  },
  {
    name: 'messages stay behind when their conversation is given away',
    seeds: 100,
    edits: [
      {
        file: 'test/sim/centre/statements.ts',
        find: '    for (const ref of below) this.#captureMove(ref)\n',
        replace: '',
      },
    ],
  },
  {
    name: 'what is refused comes with a row that its writer may not see any more',
    seeds: 150,
    edits: [
      {
        file: 'server/sync/push/decide.ts',
        find: ' || row.deleted || !isVisibleTo(context, row)) return undefined',
        replace: ' || row.deleted) return undefined',
      },
    ],
  },
]

/** Mistakes with a log that does not go back for ever. */
export const retentionMistakes: readonly Mistake[] = [
  {
    name: 'the floor of the log is not looked at',
    seeds: 150,
    edits: [
      {
        file: 'test/sim/centre/feed.ts',
        find: '    return position < this.#database.floor\n',
        replace: '    return position < 0\n',
      },
    ],
  },
  {
    name: 'lost values are told from the log, which does not go back so far',
    seeds: 600,
    edits: [
      {
        file: 'test/sim/centre/feed.ts',
        find: '    for (const [, conflict] of conflicts.entries())\n',
        replace: `    const logged = new Set(this.#database.log.map(({ id }) => id))
    for (const [, conflict] of [...conflicts.entries()].filter(([id]) => logged.has(id)))
`,
      },
    ],
  },
]

/** Mistakes of what the database does in its transactions. The real centre does it in SQL; here its model is changed. */
export const transactionMistakes: readonly Mistake[] = [
  {
    name: 'the state is read before the rows are locked',
    seeds: 150,
    edits: [
      {
        file: 'test/sim/centre/push.ts',
        find: '    await lockRows(this.#database, transaction, statements, fresh)\n',
        replace: `    const early = workingState(this.#database, transaction, clientId, fresh)
    await lockRows(this.#database, transaction, statements, fresh)
`,
      },
      {
        file: 'test/sim/centre/push.ts',
        find: '      state: workingState(this.#database, transaction, clientId, fresh),',
        replace: '      state: early,',
      },
    ],
  },
  {
    name: 'the watermark is written outside the transaction of the rows',
    seeds: 100,
    edits: [
      {
        file: 'test/sim/centre/push.ts',
        find: '    transaction.write(database.clients, clientId, { ...client, seq: last.seq, txId: last.id })',
        replace: `    setTimeout(() => {
      void database.transaction(async (later) => {
        later.write(database.clients, clientId, { ...client, seq: last.seq, txId: last.id })
      })
    }, 20)`,
      },
    ],
  },
  {
    name: 'a transaction is known again by its number, not by its id',
    from: 1,
    seeds: 400,
    edits: [
      {
        file: 'test/sim/centre/push.ts',
        find: '    if (mark.seq > 0 && !isSame)',
        replace: '    if (mark.seq < 0)',
      },
      {
        file: 'sync/client/acknowledge.ts',
        find: '  if (own === id || seq < state.acked_seq) return\n',
        replace: '  if (own !== null) return\n',
      },
    ],
  },
  {
    name: 'outcomes do not go through the log',
    seeds: 60,
    edits: [
      {
        file: 'test/sim/centre/push.ts',
        find: '  tell(database, transaction, { tbl: LogKind.outcome, id: clientId, image: outcome, keys })\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a client id is not bound to its user',
    seeds: 100,
    edits: [
      {
        file: 'test/sim/centre/principals.ts',
        find: '    if (bound?.userId !== userId)\n',
        replace: '    if (bound === undefined)\n',
      },
      {
        file: 'test/sim/centre/principals.ts',
        find: '    if (bound.agentId !== agentId)\n',
        replace: `    if (bound.agentId === '')\n`,
      },
    ],
  },
  {
    name: 'the role is the one of the token',
    seeds: 150,
    edits: [
      {
        file: 'test/sim/centre/principals.ts',
        find: 'return { userId: claims.userId, agentId: claims.agentId, role: role as UserRole }',
        replace: `const issued = this.#issued.get(claims.agentId) ?? (role as UserRole)
    this.#issued.set(claims.agentId, issued)
    return { userId: claims.userId, agentId: claims.agentId, role: issued }`,
      },
      {
        file: 'test/sim/centre/principals.ts',
        find: '  readonly #database: ModelDatabase\n',
        replace: `  readonly #issued = new Map<string, UserRole>()
  readonly #database: ModelDatabase
`,
      },
    ],
  },
  {
    name: 'a cascade leaves no scope: the keys are looked up in the parent, which is gone',
    seeds: 60,
    edits: [
      {
        file: 'test/sim/centre/statements.ts',
        find: 'this.#database.meta.read(key, this.#transaction)?.keys ?? this.#scopeKeys(table, row)',
        replace: `table.owner.kind === 'parent' && this.read(mustTable(table.owner.table), String(row[table.owner.column])) === undefined ? [] : this.#scopeKeys(table, row)`,
      },
    ],
  },
  {
    name: 'positions are those of the sequence',
    seeds: 150,
    edits: [
      {
        file: 'test/sim/centre/feed.ts',
        find: 'isVisible(BigInt(xid), high) && !isVisible(BigInt(xid), low)',
        replace: 'isVisible(BigInt(xid), high) && xid >= from.snapshot.xmax',
      },
    ],
  },
]
