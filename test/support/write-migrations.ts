/** Writes V001 from the definitions: `npm run schema:write`. Only until the first release. */
import { writeFileSync } from 'node:fs'
import { postgresSchema } from '../../schema/postgres/ddl.ts'
import { sqliteSchema } from '../../schema/sqlite/ddl.ts'

const folder = new URL('../../schema/migrations/', import.meta.url)
writeFileSync(new URL('postgres/V001_initial_schema.sql', folder), postgresSchema())
writeFileSync(new URL('sqlite/V001_initial_schema.sql', folder), sqliteSchema())
