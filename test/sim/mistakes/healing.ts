import type { Mistake } from './mistake.ts'

/** Mistakes that show only where the centre goes back. */
export const healingMistakes: readonly Mistake[] = [
  {
    name: 'positions are compared without the history',
    seeds: 100,
    edits: [
      {
        file: 'test/sim/centre/model-database.ts',
        find: 'return at !== -1 && position <= head && (next === undefined || position < next.firstPosition)',
        replace: 'return position <= head',
      },
    ],
  },
  {
    name: 'a store that heals does not put its kept transactions back',
    seeds: 100,
    edits: [
      {
        file: 'sync/client/heal-store.ts',
        find: '      const count = requeue(connection, offered)',
        replace: `      for (const { n } of offered) forget(connection, n)
      const count = requeue(connection, [])`,
      },
    ],
  },
  {
    name: 'kept transactions are sent under new random ids',
    seeds: 100,
    edits: [
      {
        file: 'sync/client/heal-store.ts',
        find: '      i + 1,\n      one.id,',
        replace: `      i + 1,\n      newId().replaceAll('-', ''),`,
      },
    ],
  },
  {
    name: 'parked transactions are never sent again',
    seeds: 150,
    edits: [
      {
        file: 'sync/client/parked.ts',
        find: '    this.#connection.applying(() => unpark(this.#connection, HELD_FROM))\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a transaction that comes back fails whole for a row deleted since',
    from: 2060,
    seeds: 60,
    edits: [
      {
        file: 'server/sync/push/decide.ts',
        find: '  const isBroughtBack = shared.missing?.isBroughtBack(transaction) === true',
        replace: '  const isBroughtBack = false',
      },
    ],
  },
  {
    name: 'a delete that comes before its row leaves nothing behind',
    from: 2060,
    seeds: 60,
    edits: [
      {
        file: 'server/sync/push/missing.ts',
        find: '    isBuried: ({ number, owner }, id) =>\n      buried.some(',
        replace: '    isBuried: ({ number, owner }, id) =>\n      [].concat().some(',
      },
    ],
  },
  {
    name: 'what is parked counts as taken',
    seeds: 150,
    edits: [
      {
        file: 'server/sync/push/missing.ts',
        find: `outcomes.some(({ kind }) => kind === 'parked')`,
        replace: `outcomes.length < 0`,
      },
    ],
  },
]
