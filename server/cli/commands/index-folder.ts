import { statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { AgentDBError } from '../../../schema/errors.ts'
import { AgentDB } from '../../../src/index.ts'
import { indexFolder, type IndexReport } from '../indexing/folder-index.ts'
import { jsonOption } from '../options.ts'
import { plural, print, printJson, printProgress, table } from '../output.ts'

interface IndexCommandOptions {
  readonly db: string
  readonly project?: string
  readonly json?: boolean
}

export function registerIndex(root: Command): void {
  root
    .command('index')
    .description('Make the code and documents of a folder searchable.')
    .argument('<folder>', 'folder, all of what is below it included')
    .requiredOption('--db <file>', 'file of the store; made when there is none')
    .option('--project <name>', 'what the files belong to (default: name of the folder)')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Files that git ignores are left out, and so are binary ones, those above 1 MB and those of unknown kind.
Run it again after changes: only changed files are embedded, and rows of files that are gone go.
A folder without most of the files that the project had is taken for another of the same name and
refused; --project says that it is meant.
Ctrl-C loses nothing: the next run goes on.

Examples:
  $ agentdb index . --db agent.db
  $ agentdb index ~/src/checkout --db agent.db --project checkout
  $ agentdb search 'retry budget' --db agent.db --in code_embeddings --filter project_id=checkout`,
    )
    .action(index)
}

async function index(folder: string, options: IndexCommandOptions): Promise<void> {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new AgentDBError('NOT_FOUND', `there is no folder ${folder}`)
  const json = options.json === true
  const project = options.project ?? basename(resolve(folder))
  const stop = new AbortController()
  const interrupted = (): void => stop.abort()
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    await using db = await AgentDB.open({ path: options.db })
    const report = await indexFolder(db, {
      folder,
      project,
      isProjectGiven: options.project !== undefined,
      signal: stop.signal,
      onProgress: (rows, total, done) => {
        if (!json) printProgress('indexing', 'files', { rows, total, done })
      },
    })
    if (report.stopped) process.exitCode = INTERRUPTED
    if (json) printJson(report)
    else print(text(report))
  } finally {
    process.off('SIGINT', interrupted)
    process.off('SIGTERM', interrupted)
  }
}

/** What shells expect of a program that Ctrl-C ended. */
const INTERRUPTED = 130

const reasons: Readonly<Record<keyof IndexReport['skipped'], string>> = {
  unknown: 'of unknown kind',
  binary: 'binary',
  huge: 'above 1 MB',
  unreadable: 'not readable',
}

function text({ project, skipped, stopped, ...counts }: IndexReport): string {
  const { added, changed, unchanged, removed, chunks } = counts
  const left = Object.entries(skipped)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${count} ${reasons[reason as keyof typeof reasons]}`)
  return [
    stopped ? `stopped: run it again to go on with ${project}` : `indexed ${project}`,
    table([
      ['files', `${added} added, ${changed} changed, ${unchanged} unchanged, ${removed} removed`],
      ['embedded', plural(chunks, 'chunk')],
      ['left out', left.length === 0 ? 'none' : left.join(', ')],
    ]),
  ].join('\n')
}
