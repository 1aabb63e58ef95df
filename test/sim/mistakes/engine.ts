import type { Mistake } from './mistake.ts'

/** Mistakes of the client's engine. */
export const engineMistakes: readonly Mistake[] = [
  {
    name: 'the cursor is saved before the rows',
    seeds: 150,
    edits: [
      {
        file: 'sync/client/puller.ts',
        find: '    onApplied(applyBatch(',
        replace: `    if (batch.page === null)
      connection.run('UPDATE sync_state SET nonce = ?, position = ?, cursor = ?', batch.nonce, batch.position, batch.cursor)
    onApplied(applyBatch(`,
      },
    ],
  },
  {
    name: 'a failed push is tried again only at the next write',
    seeds: 60,
    edits: [
      {
        file: 'sync/client/sync-engine.ts',
        find: `    await this.#pusher.pushAll(false)
    // Where only the push had failed`,
        replace: '    // Where only the push had failed',
      },
      {
        file: 'sync/client/sync-engine.ts',
        find: 'const timer = setTimeout(done, OUTBOX_POLL_MS)',
        replace: 'const timer = setTimeout(done, 1000 * OUTBOX_POLL_MS)',
      },
      {
        file: 'sync/client/sync-engine.ts',
        find: `    this.#wake = undefined
  }

  async #pullStep`,
        replace: `    this.#wake = undefined
    await this.#pusher.pushAll(false)
  }

  async #pullStep`,
      },
    ],
  },
  {
    name: 'what is pending is removed at the reply of the push',
    seeds: 30,
    edits: [
      {
        file: 'sync/client/pusher.ts',
        find: '        this.#sentAtMs = performance.now()',
        replace: `        this.#options.connection.run('DELETE FROM sync_log WHERE tx < ?', nextSeq)
        this.#options.connection.run('DELETE FROM sync_tx WHERE seq < ?', nextSeq)
        this.#sentAtMs = performance.now()`,
      },
    ],
  },
  {
    name: 'the base is read when the push is made',
    seeds: 60,
    edits: [
      {
        file: 'sync/client/outbox.ts',
        find: `'SELECT seq, id, clock, nonce, position FROM sync_tx WHERE`,
        replace: `'SELECT seq, id, clock, (SELECT nonce FROM sync_state) AS nonce, (SELECT position FROM sync_state) AS position FROM sync_tx WHERE`,
      },
    ],
  },
  {
    name: 'the queue is not flushed before it is sent',
    seeds: 200,
    edits: [
      {
        file: 'sync/client/outbox.ts',
        find: '    if ((durable?.durable_seq ?? 0) < upToSeq) this.#connection.flush()',
        replace: '    if ((durable?.durable_seq ?? 0) < -upToSeq) this.#connection.flush()',
      },
    ],
  },
  {
    name: 'a late answer is applied wherever the store stands by then',
    seeds: 200,
    edits: [
      {
        file: 'sync/client/puller.ts',
        find: `  if (position < now.position) return page === null ? 'seen' : 'late'\n`,
        replace: '',
      },
    ],
  },
]

/** Mistakes of applying a batch. */
export const applyMistakes: readonly Mistake[] = [
  {
    name: 'rows are applied by delete and insert, with foreign keys on',
    seeds: 60,
    edits: [
      {
        file: 'sync/client/row-writer.ts',
        find: `    this.#connection.run(statementsOf(table).upsert, ...valuesOf(table, row))
  }

  /** Ids`,
        replace: `    this.#connection.run(statementsOf(table).remove, row['id'] ?? null)
    this.#connection.run(statementsOf(table).upsert, ...valuesOf(table, row))
  }

  /** Ids`,
      },
      {
        file: 'src/sqlite/connection.ts',
        find: `    this.#database.pragma('foreign_keys = OFF')`,
        replace: `    this.#database.pragma('foreign_keys = ON')
    this.#database.pragma('defer_foreign_keys = ON')`,
      },
    ],
  },
  {
    name: 'a derived change is not removed with its cause',
    seeds: 60,
    edits: [
      {
        file: 'sync/client/apply-batch.ts',
        find: '    if (this.#hasBases) this.#enqueueUncaused()\n',
        replace: '',
      },
    ],
  },
  {
    name: 'what is displaced is not told to anyone',
    seeds: 150,
    edits: [
      {
        file: 'sync/client/apply-batch.ts',
        find: 'this.#outcomes.block(table, { ...row, id }, why, this.#at)',
        replace: 'void why',
      },
    ],
  },
  {
    name: 'a stub is counted in the checksum',
    seeds: 150,
    edits: [
      {
        file: 'sync/client/local-checksum.ts',
        find: 'WHERE NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = t.id AND b.tbl = ${table.number})\n      AND NOT EXISTS',
        replace: 'WHERE NOT EXISTS',
      },
    ],
  },
  {
    name: 'what was acknowledged stays pending until the next batch',
    seeds: 30,
    edits: [
      {
        file: 'sync/client/acknowledge.ts',
        find: `connection.run('DELETE FROM sync_log WHERE tx <= ? AND n < ?', part.seq, part.belowN)`,
        replace: `connection.run('DELETE FROM sync_log WHERE tx < ? AND n < ?', part.seq, part.belowN)`,
      },
    ],
  },
]

/** Mistakes with conflicts that someone decided. */
export const decisionOfConflictMistakes: readonly Mistake[] = [
  {
    name: 'a conflict that is retried keeps its record',
    seeds: 60,
    edits: [
      {
        file: 'src/conflicts/conflict-log.ts',
        find: `      this.#resolve(id, 'retried')\n`,
        replace: '',
      },
    ],
  },
  {
    name: 'a conflict that is retried is sent under the base that it had',
    seeds: 100,
    edits: [
      {
        file: 'sync/client/outbox.ts',
        find: `'SELECT seq, id, clock, nonce, position FROM sync_tx WHERE`,
        replace: `'SELECT seq, id, clock, nonce, CASE WHEN EXISTS (SELECT 1 FROM sync_log l JOIN sync_conflicts c ON c.row_id = l.id WHERE l.tx = seq AND c.resolved = \\'retried\\') THEN max(0, position - 1) ELSE position END AS position FROM sync_tx WHERE`,
      },
    ],
  },
]

/** Mistakes of the store's triggers. */
export const captureMistakes: readonly Mistake[] = [
  {
    name: 'a patch goes without the rest of its group',
    seeds: 60,
    changesStoreSchema: true,
    edits: [
      {
        file: 'schema/sqlite/capture.ts',
        find: 'const together = group === undefined ? [name] : group.columns',
        replace: 'const together = [name]',
      },
    ],
  },
  {
    name: 'writes of foreign-key actions are pushed',
    seeds: 150,
    changesStoreSchema: true,
    edits: [
      {
        file: 'schema/sqlite/capture.ts',
        find: `return conditions.length === 0 ? '1' :`,
        replace: `return conditions.length >= 0 ? '1' :`,
      },
    ],
  },
]
