"""What people look for and do not find, kept so that it says little of who they are (docs/analytics.md).

request → Event (memory) → redacted, hashed → Parquet by day → Report
"""
