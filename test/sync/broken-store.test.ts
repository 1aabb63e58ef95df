import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { AgentDBError } from '../../schema/errors.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { lockStore } from '../../sync/client/store-lock.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import type { Transport } from '../../sync/client/transport.ts'

test('a store whose disk can be read no more stops the sync, says why, and lets go of the store', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'agentdb-broken-'))
  const path = join(folder, 'agent.db')
  const db = await AgentDB.open({ path })
  const { connection, clock } = internalsOf(db)
  const broken = new Proxy(connection, {
    get(target, name) {
      if (isBroken && (name === 'get' || name === 'all'))
        return () => {
          throw new Error('disk I/O error')
        }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value
    },
  })
  let isBroken = false
  const unreachable = (): never => {
    isBroken = true
    throw new AgentDBError('UNREACHABLE', 'the centre is away')
  }
  const transport = { push: unreachable, pull: unreachable } as unknown as Transport
  const engine = new SyncEngine({
    connection: broken,
    clock,
    transport,
    random: Math.random,
    checkToken: async () => undefined,
    pullWaitMs: 100,
    retryMinMs: 1,
    retryMaxMs: 2,
  })
  expect(() => lockStore(path)).toThrow(expect.objectContaining({ code: 'SYNC_ELSEWHERE' }))
  engine.start()
  await expect
    .poll(() => {
      isBroken = false
      const { state, lastError } = engine.status()
      isBroken = state !== 'stopped'
      return { state, message: lastError?.message }
    })
    .toEqual({ state: 'stopped', message: 'disk I/O error' })
  isBroken = true
  await engine.close().catch(() => undefined)
  lockStore(path).release()
  await db.close()
  rmSync(folder, { recursive: true, force: true })
})
