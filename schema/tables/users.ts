import {
  boolean,
  defineTable,
  enumOf,
  inet,
  integer,
  json,
  text,
  timestamp,
  uuid,
  varchar,
} from '../define.ts'
import { userRole, userStatus } from '../enums.ts'

export const users = defineTable('users', {
  number: 1,
  comment: 'User accounts with authentication and authorization',
  writeClass: 'row',
  owner: { kind: 'self' },
  columns: {
    id: uuid().notNull().defaultNewId().profile(),
    email: varchar(255).notNull().fixed(),
    username: varchar(100).notNull().fixed().profile(),
    full_name: varchar(255).profile(),
    password_hash: varchar(255).notNull().serverOnly(),
    role: enumOf(userRole).notNull().default('developer').fixed().profile(),
    status: enumOf(userStatus).notNull().default('pending').fixed().profile(),
    avatar_url: text().profile(),
    timezone: varchar(50).default('UTC').profile(),
    preferences: json()
      .default('{}')
      .merges('merge')
      .comment('User-specific settings: {theme, notifications, default_project}'),
    mfa_enabled: boolean().default(false).fixed(),
    mfa_secret: varchar(255).serverOnly(),
    api_key_hash: varchar(255).serverOnly(),
    last_login_at: timestamp().fixed(),
    last_login_ip: inet().serverOnly(),
    failed_login_attempts: integer().default(0).serverOnly(),
    locked_until: timestamp().serverOnly(),
    created_at: timestamp().notNull().defaultNow().fixed().profile(),
    updated_at: timestamp().notNull().defaultNow().derived().profile(),
    deleted_at: timestamp().fixed().profile(),
  },
  checks: [
    {
      name: 'chk_email_format',
      postgres: `email ~ '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\\.[A-Za-z]{2,}$'`,
      sqlite: `email LIKE '_%@_%.__%' AND email NOT GLOB '*[^A-Za-z0-9._%+@-]*'`,
    },
    {
      name: 'chk_username_format',
      postgres: `username ~ '^[A-Za-z0-9_-]{3,100}$'`,
      sqlite: `length(username) BETWEEN 3 AND 100 AND username NOT GLOB '*[^A-Za-z0-9_-]*'`,
    },
  ],
  indexes: [
    { name: 'uq_users_email', on: ['lower(email)'], where: 'deleted_at IS NULL', unique: true },
    {
      name: 'uq_users_username',
      on: ['lower(username)'],
      where: 'deleted_at IS NULL',
      unique: true,
    },
    { name: 'idx_users_email', on: ['email'], where: 'deleted_at IS NULL' },
    { name: 'idx_users_username', on: ['username'], where: 'deleted_at IS NULL' },
    { name: 'idx_users_role', on: ['role'], where: 'deleted_at IS NULL' },
    { name: 'idx_users_status', on: ['status'], where: 'deleted_at IS NULL' },
    { name: 'idx_users_api_key', on: ['api_key_hash'], where: 'api_key_hash IS NOT NULL' },
  ],
  softDelete: 'deleted_at',
})
