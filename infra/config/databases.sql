-- The databases of the servers, made when PostgreSQL starts on an empty folder.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_accounts;
CREATE DATABASE prefect;
