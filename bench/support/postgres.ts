import { findPostgresBinaries } from '../../test/support/postgres-binaries.ts'
import { startPostgres } from '../../test/support/postgres-server.ts'
import type { BenchContext } from '../workloads/workload.ts'

/**
 * The PostgreSQL that is measured: the one of `DATABASE_URL`, else one of our own with fsync on. Nobody can install one
 * here without root; then its rows are skipped and say so.
 */
export async function openPostgres(): Promise<
  BenchContext & { readonly description: string } & AsyncDisposable
> {
  const url = process.env['DATABASE_URL']
  if (url !== undefined && url !== '') {
    return {
      postgres: { url },
      description: 'PostgreSQL of DATABASE_URL',
      [Symbol.asyncDispose]: async () => undefined,
    }
  }
  if (findPostgresBinaries() === undefined && process.getuid?.() !== 0) {
    const missing =
      'there is no PostgreSQL and no root to install it: set DATABASE_URL, or install the package postgresql'
    return {
      postgres: { missing },
      description: 'none',
      [Symbol.asyncDispose]: async () => undefined,
    }
  }
  const server = await startPostgres()
  return {
    postgres: { url: server.url },
    description: 'PostgreSQL started for this run, default settings, fsync on',
    [Symbol.asyncDispose]: () => server.stop(),
  }
}
