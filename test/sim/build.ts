import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { AgentDBError } from '../../schema/errors.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { mustTable } from '../../schema/tables.ts'
import { forgetIds } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { AgentDB } from '../../src/index.ts'
import { Connection, internalsOf } from '../../src/internal-for-sync.ts'
import { migrateStore } from '../../src/sqlite/migrator.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { RetryLaterError } from '../../sync/client/transport.ts'
import { ModelFeed } from './centre/feed.ts'
import { ModelPush } from './centre/push.ts'
import { Statements } from './centre/statements.ts'

const version: number = SCHEMA_VERSION

/**
 * What agents of the simulator are made of, and servers over the database of its centre. Where two builds meet, each has
 * classes and a schema of its own.
 */
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
  mustTable,
  ModelFeed,
  ModelPush,
  Statements,
}

export type SimBuild = typeof ownBuild

/** The build in another folder, in this process. */
export async function loadBuild(root: string): Promise<SimBuild> {
  const { href } = pathToFileURL(join(root, 'test/sim/build.ts'))
  const module = (await import(href)) as { readonly ownBuild: SimBuild }
  return module.ownBuild
}
