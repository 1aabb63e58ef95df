import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const DEBIAN_ROOT = '/usr/lib/postgresql'
const APT_LOCK_WAIT_SECONDS = 300

/** What a developer without PostgreSQL is told. */
const INSTALL_HINT = [
  'Do one of:',
  '  - set DATABASE_URL to a PostgreSQL 14+ server whose role may create databases,',
  '    e.g. DATABASE_URL=postgres://postgres@127.0.0.1:5432/postgres',
  '  - Debian or Ubuntu: sudo apt-get install postgresql',
  '    (only the binaries in /usr/lib/postgresql/<version>/bin are used, no running service)',
  '  - elsewhere: install PostgreSQL 14+ so that `pg_config --bindir` names the folder of initdb',
].join('\n')

/**
 * The folder that holds `initdb` and `postgres`: Debian's newest version, else what `pg_config` says.
 * `undefined` when there is none.
 */
export function findPostgresBinaries(): string | undefined {
  const versions = existsSync(DEBIAN_ROOT) ? readdirSync(DEBIAN_ROOT) : []
  const newestFirst = versions.toSorted((a, b) => Number(b) - Number(a))
  const candidates = newestFirst.map((version) => join(DEBIAN_ROOT, version, 'bin'))
  const configured = spawnSync('pg_config', ['--bindir'], { encoding: 'utf8' })
  if (configured.status === 0) candidates.push(configured.stdout.trim())
  return candidates.find(
    (dir) => existsSync(join(dir, 'initdb')) && existsSync(join(dir, 'postgres')),
  )
}

/**
 * As {@link findPostgresBinaries}, but installs Debian's `postgresql` package when there is none and
 * we may (root, with apt-get).
 *
 * @throws Error that says what to install, when we may not or the installation fails.
 */
export async function ensurePostgresBinaries(): Promise<string> {
  const found = findPostgresBinaries()
  if (found !== undefined) return found
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) {
    throw new Error(`The tests need a real PostgreSQL server and found none.\n${INSTALL_HINT}`)
  }
  console.log('PostgreSQL is missing: installing the package "postgresql" with apt-get')
  await installWithApt()
  const installed = findPostgresBinaries()
  if (installed === undefined) {
    throw new Error(
      `apt-get installed postgresql, but ${DEBIAN_ROOT} has no initdb.\n${INSTALL_HINT}`,
    )
  }
  return installed
}

async function installWithApt(): Promise<void> {
  // The package would create and start a cluster of its own on port 5432. We only want the binaries.
  const noCluster = '/etc/postgresql-common/createcluster.d/agentdb-tests.conf'
  mkdirSync(dirname(noCluster), { recursive: true })
  writeFileSync(noCluster, 'create_main_cluster = false\n')
  try {
    await apt('update')
    await apt('install', '--yes', '--no-install-recommends', 'postgresql')
  } finally {
    rmSync(noCluster, { force: true })
  }
}

async function apt(...args: readonly string[]): Promise<void> {
  const child = spawn(
    'apt-get',
    ['-q', '-o', `DPkg::Lock::Timeout=${APT_LOCK_WAIT_SECONDS}`, ...args],
    {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  const collect = (chunk: Buffer): void => {
    output += chunk.toString('utf8')
  }
  child.stdout.on('data', collect)
  child.stderr.on('data', collect)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) {
    const tail = output.trimEnd().split('\n').slice(-20).join('\n')
    throw new Error(
      `apt-get ${args.join(' ')} failed with exit code ${code}:\n${tail}\n${INSTALL_HINT}`,
    )
  }
}
