import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { AgentDBError } from '../../schema/errors.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { forgetIds } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { AgentDB } from '../../src/index.ts'
import { Connection, internalsOf } from '../../src/internal-for-sync.ts'
import { migrateStore } from '../../src/sqlite/migrator.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { RetryLaterError } from '../../sync/client/transport.ts'

const version: number = SCHEMA_VERSION

/** What an agent of the simulator is made of. Where two builds meet, each has classes and a schema of its own. */
export const ownBuild = {
  version,
  AgentDB,
  SyncEngine,
  AgentDBError,
  RetryLaterError,
  Connection,
  internalsOf,
  migrateStore,
  loggedMutations,
  forgetIds,
}

export type SimBuild = typeof ownBuild

/** The build in another folder, in this process. */
export async function loadBuild(root: string): Promise<SimBuild> {
  const { href } = pathToFileURL(join(root, 'test/sim/build.ts'))
  const module = (await import(href)) as { readonly ownBuild: SimBuild }
  return module.ownBuild
}
