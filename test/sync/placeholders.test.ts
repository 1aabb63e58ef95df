import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { databaseKinds } from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { errorOf, openStore } from '../support/store.ts'

const FIRST = '0001-01-01T00:00:00.000000Z'
const LAST = '9999-12-31T23:59:59.999999Z'
const MARKED_JSON = { $agentdb: 'value cannot be represented here' }
const LOSSY = '{"n": 9223372036854775807}'
const nan = String.raw`\x0000c07f0000803f`

describe.each(databaseKinds)('what only the centre can hold, on %s,', (kind) => {
  let fleet: Fleet
  let drop: () => Promise<void> = async () => undefined
  let userId: string
  let a: TestAgent
  let b: TestAgent

  beforeAll(async () => {
    if (kind === 'pglite') {
      fleet = await Fleet.start()
      return
    }
    const database = await createDatabase(inject('postgresUrl'), 'placeholders')
    drop = () => database.drop()
    fleet = await Fleet.start({ databaseUrl: database.url })
  })
  afterAll(async () => {
    await fleet[Symbol.asyncDispose]()
    await drop()
  })
  beforeEach(async () => {
    await fleet.clear()
    userId = await fleet.addUser()
    a = await fleet.addAgent(userId)
    b = await fleet.addAgent(userId)
  })

  async function mustEqualCentre(...agents: TestAgent[]): Promise<void> {
    for (const agent of agents) {
      const { local, central } = await agent.pull()
      expect(local).toEqual(central)
    }
  }

  const at = (agent: TestAgent): string[] =>
    agent.db.placeholders.list().map(({ table, column }) => `${table}.${column}`)

  /** An incident whose end is 'infinity' at the centre, and which both agents have. */
  async function endlessIncident(set = `resolved_at = 'infinity'`): Promise<string> {
    const { id } = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
    await a.sync()
    await fleet.sql(`UPDATE incidents SET ${set}`)
    await a.sync()
    await b.sync()
    return id
  }

  const endOf = async (id: string): Promise<unknown> => {
    const [row] = await fleet.sql(
      'SELECT status::text, resolved_at::text AS resolved_at FROM incidents WHERE id = ?',
      id,
    )
    return row
  }

  describe('comes', () => {
    test('as a placeholder that is named beside the row, one kind as the other, and nothing else is', async () => {
      const incident = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
      const vectorId = newId()
      const runbook = newId()
      await a.sync()
      await fleet.sql(`UPDATE incidents SET title = 'central', metadata = '${LOSSY}',
        blast_radius = '{"users": 12, "note": "9223372036854775807"}',
        affected_services = '{{a,b},{c,d}}', remediation_steps = '{one,two}',
        related_incidents = array[array[id], array[id]],
        detected_at = '-infinity', acknowledged_at = '0044-03-15 12:00:00+00 BC',
        resolved_at = '12026-01-01 00:00:00+00', closed_at = 'infinity'`)
      await fleet.sql(
        `INSERT INTO runbooks (id, name, steps) VALUES (?, 'deep', (repeat('[', 200) || repeat(']', 200))::jsonb)`,
        runbook,
      )
      await fleet.sql(
        `INSERT INTO embeddings (id, user_id, collection, model, dimension, vector, payload)
        VALUES (?, ?, 'incident_knowledge', 'm', 2, '${nan}', '{"incident": "i"}')`,
        vectorId,
        userId,
      )
      // A takes them in row by row, B with its whole scope.
      await a.sync()
      await b.sync()
      for (const { db } of [a, b]) {
        expect(db.incidents.find(incident.id)).toMatchObject({
          title: 'central',
          metadata: MARKED_JSON,
          blast_radius: { users: 12, note: '9223372036854775807' },
          affected_services: [],
          remediation_steps: ['one', 'two'],
          related_incidents: [],
          detected_at: FIRST,
          acknowledged_at: FIRST,
          resolved_at: LAST,
          closed_at: LAST,
        })
        expect(db.embeddings.find(vectorId)).toMatchObject({
          vector: Float32Array.of(0, 0),
          payload: { incident: 'i' },
        })
        expect(db.placeholders.list()).toEqual([
          ...[
            'affected_services',
            'metadata',
            'related_incidents',
            'detected_at',
            'acknowledged_at',
            'resolved_at',
            'closed_at',
          ].map((column) => ({ table: 'incidents', id: incident.id, column })),
          { table: 'runbooks', id: runbook, column: 'steps' },
          { table: 'embeddings', id: vectorId, column: 'vector' },
        ])
        expect(db.placeholders.list({ table: 'runbooks' })).toEqual([
          { table: 'runbooks', id: runbook, column: 'steps' },
        ])
        expect(db.placeholders.list({ id: vectorId })).toHaveLength(1)
        expect(db.placeholders.list({ table: 'runbooks', id: vectorId })).toEqual([])
      }
      await mustEqualCentre(a, b)
    })

    test('told apart from the real value that looks the same', async () => {
      const id = await endlessIncident(
        `resolved_at = '${LAST}', affected_services = '{}', metadata = '${JSON.stringify(MARKED_JSON)}'`,
      )
      expect(at(a)).toEqual([])
      await mustEqualCentre(a, b)
      const before = a.db.incidents.find(id)

      await fleet.sql(`UPDATE incidents SET resolved_at = 'infinity'`)
      await a.sync()
      expect({ ...a.db.incidents.find(id), updated_at: null }).toEqual({
        ...before,
        updated_at: null,
      })
      expect(at(a)).toEqual(['incidents.resolved_at'])
      const marked = await a.pull()
      expect(marked.local).toEqual(marked.central)

      // The checksum covers the mark, too: rows that look the same are not.
      a.connection.run('DELETE FROM sync_placeholder')
      const unmarked = await a.pull()
      expect(unmarked.central).toEqual(marked.central)
      expect(unmarked.local).not.toEqual(unmarked.central)
    })

    test('and goes with the value, the row, or its place in the scope', async () => {
      await endlessIncident(`resolved_at = 'infinity', metadata = '${LOSSY}'`)
      await fleet.sql(`UPDATE incidents SET resolved_at = detected_at`)
      await a.sync()
      expect(at(a)).toEqual(['incidents.metadata'])
      await fleet.sql(`UPDATE incidents SET metadata = '{}'`)
      await a.sync()
      expect(at(a)).toEqual([])

      await fleet.sql(`UPDATE incidents SET metadata = '${LOSSY}'`)
      await a.sync()
      expect(at(a)).toEqual(['incidents.metadata'])
      await fleet.sql('DELETE FROM incidents')
      await a.sync()
      expect(at(a)).toEqual([])
      await mustEqualCentre(a, b)
      expect(at(b)).toEqual([])
    })

    test('and goes when the row leaves the scope, though a stub of it stays', async () => {
      const viewerId = await fleet.addUser('viewer')
      const viewer = await fleet.addAgent(viewerId, 'viewer')
      const [incident, runbook] = [newId(), newId()]
      await fleet.sql(`INSERT INTO runbooks (id, name, steps) VALUES (?, 'deploy', '[]')`, runbook)
      await fleet.sql(
        `INSERT INTO incidents (id, title, severity, source, assigned_to, resolved_at) VALUES (?, 'x', 'low', 'x', ?, 'infinity')`,
        incident,
        viewerId,
      )
      await fleet.sql(
        'INSERT INTO runbook_executions (id, runbook_id, incident_id, executed_by) VALUES (?, ?, ?, ?)',
        newId(),
        runbook,
        incident,
        viewerId,
      )
      await viewer.sync()
      expect(at(viewer)).toEqual(['incidents.resolved_at'])
      await fleet.sql('UPDATE incidents SET assigned_to = NULL')
      await viewer.sync()
      expect(viewer.connection.all('SELECT id FROM sync_stub')).toEqual([{ id: incident }])
      expect(at(viewer)).toEqual([])
      await mustEqualCentre(viewer)
    })

    test('anew with the whole scope, and what was marked before is not any more', async () => {
      const kept = await endlessIncident()
      await fleet.sql(`UPDATE incidents SET resolved_at = NULL, closed_at = 'infinity'`)
      a.connection.run('UPDATE sync_state SET cursor = NULL')
      await a.sync()
      expect(a.db.placeholders.list()).toEqual([
        { table: 'incidents', id: kept, column: 'closed_at' },
      ])
      await mustEqualCentre(a)
    })
  })

  describe('is not overwritten', () => {
    test('by an edit of another column, of the same group or not', async () => {
      const id = await endlessIncident(`resolved_at = 'infinity', metadata = '${LOSSY}'`)
      b.db.incidents.update(id, { root_cause: 'found' })
      b.db.incidents.update(id, { status: 'investigating' })
      const read = b.db.incidents.find(id)
      // A whole row that was read and is written back changes what differs, and no more.
      b.db.incidents.update(id, {
        title: 'edited',
        status: 'resolved',
        metadata: read?.metadata,
        resolved_at: read?.resolved_at,
        detected_at: read?.detected_at,
      })
      expect(at(b)).toEqual(['incidents.metadata', 'incidents.resolved_at'])
      await b.sync()
      await a.sync()
      expect(b.outcomes.map((outcome) => outcome.kind)).toEqual(['applied', 'applied', 'applied'])
      expect(
        await fleet.sql(
          'SELECT title, root_cause, status::text, resolved_at::text AS end, metadata::text AS m FROM incidents',
        ),
      ).toEqual([
        { title: 'edited', root_cause: 'found', status: 'resolved', end: 'infinity', m: LOSSY },
      ])
      expect(at(a)).toEqual(['incidents.metadata', 'incidents.resolved_at'])
      expect(a.db.incidents.find(id)?.status).toBe('resolved')
      await mustEqualCentre(a, b)
    })

    test('nor is the real value that the centre has put in its place meanwhile', async () => {
      const id = await endlessIncident()
      await fleet.sql(`UPDATE incidents SET resolved_at = '2126-01-01 00:00:00+00'`)
      // Later than the centre's, whatever the clocks of this machine say.
      b.connection.run('UPDATE sync_state SET clock = clock + 60000000')
      b.db.incidents.update(id, { status: 'investigating' })
      await b.sync()
      await a.sync()
      expect(await endOf(id)).toEqual({
        status: 'investigating',
        resolved_at: '2126-01-01 00:00:00+00',
      })
      for (const agent of [a, b]) {
        expect(agent.db.incidents.find(id)).toMatchObject({
          status: 'investigating',
          resolved_at: '2126-01-01T00:00:00.000000Z',
        })
        expect(at(agent)).toEqual([])
      }
      await mustEqualCentre(a, b)
    })

    test('and a later change of it still wins over its whole group', async () => {
      const id = newId()
      await fleet.sql(
        `INSERT INTO embeddings (id, user_id, collection, model, dimension, vector) VALUES (?, ?, 'incident_knowledge', 'm', 2, '${nan}')`,
        id,
        userId,
      )
      await b.sync()
      b.connection.transaction(() =>
        b.connection.run(`UPDATE embeddings SET content_preview = 'seen' WHERE id = ?`, id),
      )
      await fleet.sql(String.raw`UPDATE embeddings SET vector = '\x0000803f0000803f'`)
      await b.sync()
      expect(b.outcomes.at(-1)).toMatchObject({ kind: 'superseded', id })
      expect(b.db.embeddings.find(id)).toMatchObject({
        content_preview: null,
        vector: Float32Array.of(1, 1),
      })
      await mustEqualCentre(a, b)
    })

    test('by a transition that is legal beside it', async () => {
      const id = await endlessIncident()
      b.db.incidents.update(id, { status: 'investigating' })
      await fleet.sql(`UPDATE incidents SET resolved_at = '2126-01-01 00:00:00+00'`)
      await b.sync()
      expect(b.outcomes.at(-1)).toMatchObject({ kind: 'merged', id })
      expect(await endOf(id)).toEqual({
        status: 'investigating',
        resolved_at: '2126-01-01 00:00:00+00',
      })
      await mustEqualCentre(a, b)
    })

    test('by a rejected edit, nor by the one that tries its values again', async () => {
      const id = await endlessIncident()
      b.connection.transaction(() =>
        b.connection.run(
          `UPDATE incidents SET status = 'investigating', blast_radius = '9223372036854775807' WHERE id = ?`,
          id,
        ),
      )
      await b.sync()
      const [conflict] = b.db.syncConflicts.list({ state: 'rejected' })
      expect(conflict).toMatchObject({ reason: 'invalid_value', rowId: id })
      expect(conflict?.mine).toMatchObject({ status: 'investigating' })
      expect(Object.keys(conflict?.mine ?? {})).not.toContain('resolved_at')
      expect(at(b)).toEqual(['incidents.resolved_at'])
      expect(b.db.incidents.find(id)).toMatchObject({ status: 'open', resolved_at: LAST })

      // Meanwhile the centre's value can be held: trying again must not bring the placeholder back.
      await fleet.sql(`UPDATE incidents SET resolved_at = '2126-01-01 00:00:00+00'`)
      await b.sync()
      b.db.incidents.update(id, { ...conflict?.mine, blast_radius: null })
      await b.sync()
      expect(await endOf(id)).toEqual({
        status: 'investigating',
        resolved_at: '2126-01-01 00:00:00+00',
      })
      await mustEqualCentre(a, b)
    })

    test('as JSON or as a vector beside what is edited', async () => {
      const [runbook, embedding] = [newId(), newId()]
      await fleet.sql(
        `INSERT INTO runbooks (id, name, steps, automation_config) VALUES (?, 'r', '[${LOSSY}]', '{"ok": 1}')`,
        runbook,
      )
      await fleet.sql(
        `INSERT INTO embeddings (id, user_id, collection, model, dimension, vector) VALUES (?, ?, 'incident_knowledge', 'm', 2, '${nan}')`,
        embedding,
        userId,
      )
      await a.sync()
      expect(at(a)).toEqual(['runbooks.steps', 'embeddings.vector'])
      // A real value by then, which a placeholder sent along would overwrite.
      await fleet.sql(String.raw`UPDATE embeddings SET vector = '\x0000803f0000803f'`)
      a.connection.run('UPDATE sync_state SET clock = clock + 60000000')
      a.db.runbooks.update(runbook, { is_automated: true })
      a.connection.transaction(() =>
        a.connection.run(`UPDATE embeddings SET content_preview = 'seen' WHERE id = ?`, embedding),
      )
      await a.sync()
      expect(
        await fleet.sql(
          'SELECT steps::text AS steps, automation_config, is_automated FROM runbooks',
        ),
      ).toEqual([{ steps: `[${LOSSY}]`, automation_config: { ok: 1 }, is_automated: true }])
      expect(
        await fleet.sql(`SELECT content_preview, encode(vector, 'hex') AS vector FROM embeddings`),
      ).toEqual([{ content_preview: 'seen', vector: '0000803f0000803f' }])
      expect(at(a)).toEqual(['runbooks.steps'])
      await mustEqualCentre(a)
    })
  })

  test('gives way to a new value: pending it is no placeholder, discarded it is one again, accepted never', async () => {
    const id = await endlessIncident()
    b.db.incidents.update(id, { resolved_at: '2126-01-01T00:00:00Z' })
    b.db.incidents.update(id, { status: 'resolved' })
    expect(at(b)).toEqual([])
    await fleet.sql(`UPDATE incidents SET title = 'central'`)
    await b.pull()
    expect(at(b)).toEqual([])
    expect(b.db.incidents.find(id)).toMatchObject({
      title: 'central',
      resolved_at: '2126-01-01T00:00:00.000000Z',
    })
    await b.sync()
    await a.sync()
    for (const agent of [a, b]) expect(at(agent)).toEqual([])
    expect(await endOf(id)).toEqual({ status: 'resolved', resolved_at: '2126-01-01 00:00:00+00' })
    await mustEqualCentre(a, b)

    await fleet.sql(`UPDATE incidents SET resolved_at = 'infinity'`)
    await b.sync()
    b.connection.transaction(() =>
      b.connection.run(
        `UPDATE incidents SET resolved_at = NULL, blast_radius = '9223372036854775807' WHERE id = ?`,
        id,
      ),
    )
    expect(at(b)).toEqual([])
    await b.sync()
    expect(b.outcomes.at(-1)?.kind).toBe('rejected')
    expect(at(b)).toEqual(['incidents.resolved_at'])
    await mustEqualCentre(a, b)
  })
})

test('placeholders of a table that does not exist are refused by name', async () => {
  await using db = await openStore()
  expect(errorOf(() => db.placeholders.list({ table: 'incident' as 'incidents' }))).toMatchObject({
    code: 'INVALID_VALUE',
    message: expect.stringContaining('"incident"') as string,
  })
})
