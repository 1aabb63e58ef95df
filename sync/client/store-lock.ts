import { AgentDBError } from '../../schema/errors.ts'
import { Connection } from '../../src/internal-for-sync.ts'

/**
 * Of all processes that have a store open, one syncs it. The lock is SQLite's own, on a file beside the store: the
 * operating system frees it when the process dies.
 */
export function lockStore(path: string): { release(): void } {
  if (path === ':memory:') return { release: () => undefined }
  const lock = new Connection({ path: `${path}-sync`, synchronous: 'normal', busyTimeoutMs: 0 })
  try {
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    throw new AgentDBError(
      'SYNC_ELSEWHERE',
      `another process already syncs ${path}; its work is seen here, too`,
      { cause: error },
    )
  }
  return { release: () => lock.close() }
}
