import type { TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { idOf, later, one, word, type CentralStep, type LocalStep } from './workload.ts'

/**
 * What only programs and operators of the next version write (`test/support/next-build.ts` says what that has): in SQL,
 * since this build has no names for it.
 */
type Read = Parameters<LocalStep>

const pickId = ([, random, connection]: Read, from: string): string | undefined =>
  random.pick(connection.all<{ id: string }>(`SELECT id FROM ${from} ORDER BY id`))?.id

/** Rows of tables that have a repository, without those that only stand in for others. */
const pickConversation = ([db, random]: Read): string | undefined =>
  random.pick(db.conversations.list())?.id
const pickIncident = ([db, random]: Read): string | undefined =>
  random.pick(db.incidents.list())?.id

const notes = 'notes' as TableName

export const newerLocalSteps: Readonly<Record<string, LocalStep>> = {
  'summarize conversation': (...read) => {
    const [, random, connection] = read
    const id = pickConversation(read)
    if (id !== undefined)
      connection.run('UPDATE conversations SET summary = ? WHERE id = ?', word(random), id)
  },
  'rank conversation': (...read) => {
    const [, random, connection] = read
    const id = pickConversation(read)
    const [title, priority] = [word(random), random.between(1, 5)]
    if (id === undefined) return
    if (random.chance(0.5))
      connection.run('UPDATE conversations SET priority = ? WHERE id = ?', priority, id)
    else
      connection.run(
        'UPDATE conversations SET priority = ?, title = ? WHERE id = ?',
        priority,
        title,
        id,
      )
  },
  'create ranked conversation': (db, random, connection) => {
    connection.run(
      'INSERT INTO conversations (id, user_id, title, summary, priority) VALUES (?, ?, ?, ?, ?)',
      newId(),
      db.userId,
      word(random),
      random.chance(0.5) ? word(random) : null,
      random.between(1, 5),
    )
  },
  'write note': (...read) => {
    const [, random, connection] = read
    const id = pickConversation(read)
    if (id === undefined) return
    connection.run(
      'INSERT INTO notes (id, conversation_id, body) VALUES (?, ?, ?)',
      newId(),
      id,
      word(random),
    )
  },
  'edit note': (...read) => {
    const [, random, connection] = read
    const id = pickId(read, 'notes')
    if (id !== undefined) connection.run('UPDATE notes SET body = ? WHERE id = ?', word(random), id)
  },
  'delete note': (...read) => {
    const id = pickId(read, 'notes')
    if (id !== undefined) read[2].run('DELETE FROM notes WHERE id = ?', id)
  },
  'trace incident': (...read) => {
    const [, random, connection] = read
    const id = pickIncident(read)
    if (id !== undefined)
      connection.run('UPDATE incidents SET origin = ? WHERE id = ?', word(random), id)
  },
  'close incident': (...read) => {
    const [, random, connection] = read
    const id = pickIncident(read)
    if (id === undefined) return
    connection.run(
      `UPDATE incidents SET status = 'closed', closed_at = ? WHERE id = ?`,
      later(random).replace('2090', '2091'),
      id,
    )
  },
  'archive incident': (...read) => {
    const [, , connection] = read
    const id = pickId(read, `incidents WHERE status = 'closed'`)
    if (id !== undefined)
      connection.run(`UPDATE incidents SET status = 'archived' WHERE id = ?`, id)
  },
}

export const newerLocalKinds = Object.keys(newerLocalSteps)

export const newerCentralSteps: Readonly<Record<string, CentralStep>> = {
  'edit what is new': async (centre, _users, random) => {
    const [table, values] = random.weighted([
      [2, ['conversations', { summary: `c${random.below(3)}` }]],
      [2, ['conversations', { priority: random.between(1, 5) }]],
      [1, ['conversations', { priority: random.between(1, 5), title: `c${random.below(3)}` }]],
      [2, ['incidents', { origin: `c${random.below(3)}` }]],
      [2, ['incidents', { status: 'archived' }]],
      [1, [notes, { body: `c${random.below(3)}` }]],
    ] as const)
    const row = await one(centre, table, random)
    return row === undefined ? [] : [{ op: 'update', table, id: idOf(row), values }]
  },
  'write note': async (centre, _users, random) => {
    const conversation = await one(centre, 'conversations', random)
    if (conversation === undefined) return []
    const row = { id: newId(), conversation_id: idOf(conversation), body: word(random) }
    return [{ op: 'insert', table: notes, row }]
  },
  'delete note': async (centre, _users, random) => {
    const row = await one(centre, notes, random)
    return row === undefined ? [] : [{ op: 'delete', table: notes, id: idOf(row) }]
  },
}

export const newerCentralKinds = Object.keys(newerCentralSteps)
