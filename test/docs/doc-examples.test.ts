import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url).pathname

/** Files whose `@example` blocks are compiled as they stand. */
const documented = [
  'src/agent-db.ts',
  'src/conflicts/conflict-log.ts',
  'src/memory/markdown.ts',
  'src/memory/reasoning-bank.ts',
  'src/transactions/local-transaction.ts',
]

/** What an example may take for granted that imports nothing itself. */
const given = `import { AgentDB, TransactionRejectedError } from '@llm-copilot/agentdb'
const db = await AgentDB.open({ path: 'agent.db' })
`

function examplesOf(file: string): string[] {
  const comments = readFileSync(join(root, file), 'utf8').matchAll(/\/\*\*([\s\S]*?)\*\//g)
  return [...comments].flatMap(([, comment = '']) => {
    const lines = comment.split('\n').map((line) => line.replace(/^\s*\* ?/, ''))
    const blocks: string[][] = []
    let block: string[] | undefined
    for (const line of lines) {
      if (line.startsWith('@')) block = undefined
      if (line.startsWith('@example')) blocks.push((block = []))
      else block?.push(line)
    }
    return blocks.map((code) => code.join('\n'))
  })
}

test('the examples in the documentation of the store, of conflicts and of local transactions compile', () => {
  const examples = documented.flatMap((file) =>
    examplesOf(file).map((code, i) => ({ name: `${file.replaceAll(/\W/g, '-')}-${i}.ts`, code })),
  )
  expect(examples.length).toBeGreaterThanOrEqual(6)
  const config = ts.readConfigFile(join(root, 'tsconfig.json'), (path) => ts.sys.readFile(path))
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root)
  const folder = mkdtempSync(join(root, 'node_modules/.cache-doc-examples-'))
  try {
    const files = examples.map(({ name, code }) => {
      const path = join(folder, name)
      writeFileSync(path, code.includes('import ') ? code : `${given}${code}`)
      return path
    })
    const program = ts.createProgram(files, {
      ...options,
      noEmit: true,
      noUnusedLocals: false,
      noUnusedParameters: false,
    })
    const problems = ts
      .getPreEmitDiagnostics(program)
      .filter(({ file }) => file?.fileName.startsWith(folder))
      .map(
        ({ file, messageText }) =>
          `${file?.fileName.slice(folder.length + 1)}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`,
      )
    expect(problems).toEqual([])
  } finally {
    rmSync(folder, { recursive: true })
  }
})
