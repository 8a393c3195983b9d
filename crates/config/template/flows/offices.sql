-- One SELECT, without side effects. Columns that are not selected are never touched.
SELECT
    code AS accountnumber,
    name,
    city AS address1_city,
    postcode AS address1_postalcode,
    phone AS telephone1,
    'Opened on ' || CAST(opened AS VARCHAR) AS description
FROM office
