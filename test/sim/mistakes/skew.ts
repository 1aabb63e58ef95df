import type { Mistake } from './mistake.ts'

/** Where agents and centre are of two versions of the schema, and are upgraded one after the other. */
export const skewMistakes: readonly Mistake[] = [
  {
    name: 'after an upgrade the tables that gained columns are not read again',
    edits: [
      {
        file: 'server/sync/hydrate.ts',
        find: `table.writeClass !== 'push-only' && gainedBetween(table, after, upTo))`,
        replace: `table.writeClass !== 'push-only' && table.since > after && gainedBetween(table, after, upTo))`,
      },
    ],
    skew: true,
    seeds: 60,
  },
  {
    name: 'what an older agent sends is not upcast',
    edits: [
      {
        file: 'server/sync/push/transaction.ts',
        find: 'needsUpcast(schema) ? upcasted(schema, read, sent) : sent',
        replace: 'sent',
      },
    ],
    skew: true,
    seeds: 60,
  },
  {
    name: 'an older agent’s update sets a column that it does not know to its default',
    edits: [
      {
        file: 'server/sync/push/transaction.ts',
        find: `values[i] ?? null])`,
        replace: `values[i] ?? null])
  if (op === 'update' && table.name === 'conversations' && schema < SCHEMA_VERSION)
    sent.push(['summary', null])`,
      },
    ],
    skew: true,
    seeds: 60,
  },
  {
    name: 'what waited for the centre’s upgrade goes behind what came after it',
    edits: [
      {
        file: 'sync/client/newer-schema.ts',
        find: 'const last = held.length === 0 ? 0 : (queue?.last ?? 0)',
        replace: 'const last = 0 * held.length',
      },
    ],
    skew: true,
    from: 1001,
    seeds: 150,
  },
  {
    name: 'a newer agent takes an older centre’s row for the whole row',
    edits: [
      {
        file: 'sync/client/apply-batch.ts',
        find: 'completed(table, came, base ?? current)',
        replace: 'completed(table, came)',
      },
    ],
    skew: true,
    seeds: 150,
  },
]
